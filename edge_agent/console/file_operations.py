"""Every change that a deployment store makes on the disk, one method each: tests cut the power between any two."""

import os
from pathlib import Path

from edge_agent.console.atomic_file import sync_folder


class FileOperations:
    """Plain POSIX; each method is one step that either happened or did not."""

    def make_folder(self, path: Path) -> None:
        """Create `path` and its parents."""
        path.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """Replace the content of `path`, not durable yet."""
        path.write_bytes(content)

    def write_at(self, path: Path, offset: int, content: bytes) -> None:
        """Write a part of `path`, not durable yet."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            written = 0
            while written < len(content):  # a full disk may take a part and refuse the rest
                written += os.pwrite(descriptor, content[written:], offset + written)
        finally:
            os.close(descriptor)

    def sync(self, path: Path) -> None:
        """Make the content of `path` durable."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_folder(self, path: Path) -> None:
        """Make names in `path` durable."""
        sync_folder(path)

    def rename(self, old: Path, new: Path) -> None:
        """Replace `new` by `old`, at once."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """Delete a file."""
        path.unlink(missing_ok=True)

    def remove_folder(self, path: Path) -> None:
        """Delete an empty folder."""
        path.rmdir()
