"""Deployments on disk, file by file: a name stands there only once its content is checked and durable.

`ROOT/deployments/<id>/` holds manifest.json, signed.json (the manifest with its signatures) and the files that this
program needs. A file grows as `<name>.part`, with `<name>.chunks` for what has come; then fsync, sha256, rename.
So whatever moment the power goes, every file without those endings is whole. `ROOT/record.json` says what is in use.
"""

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

from edge_agent.console.deployment_directory import MANIFEST_FILE, DeploymentDirectory, open_deployment
from edge_agent.console.file_operations import FileOperations
from edge_agent.protocol.chunks import CHUNK_BYTES, ChunkMap
from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.manifest import FileEntry
from edge_agent.protocol.update_messages import SignedContent

SIGNED_FILE = "signed.json"
PART, CHUNKS = ".part", ".chunks"
# Left free for logs and the system: a card that is full to the last block stops more than this program.
RESERVE_BYTES = 4 * 1024 * 1024


class DeploymentStore:
    """A folder of deployments. `budget_bytes`: most that it may take, None for the disk's own limit."""

    def __init__(self, root: Path, files: FileOperations | None = None, budget_bytes: int | None = None) -> None:
        self.root = root
        self._files = files or FileOperations()
        self._budget_bytes = budget_bytes
        self._files.make_folder(root / "deployments")

    def folder(self, deployment: str) -> Path:
        """Where a deployment is, or would be."""
        return self.root / "deployments" / deployment

    def open(self, deployment: str) -> DeploymentDirectory:
        """A stored deployment; UserError if it is not there."""
        return open_deployment(self.folder(deployment))

    def holds(self, deployment: str, entries: Iterable[FileEntry]) -> bool:
        """Whether the manifest and all `entries` of a deployment are here."""
        folder = self.folder(deployment)
        return bool(deployment) and (folder / MANIFEST_FILE).is_file() and all(_is_there(folder, e) for e in entries)

    def manifests(self) -> dict[str, bytes]:
        """Manifests that are here by id, their files whole or not."""
        return {path.parent.name: path.read_bytes() for path in self.root.glob(f"deployments/*/{MANIFEST_FILE}")}

    def signed(self, deployment: str) -> SignedContent | None:
        """The manifest with its signatures, as it came; None for a deployment from a local folder."""
        try:
            return SignedContent.model_validate_json((self.folder(deployment) / SIGNED_FILE).read_bytes())
        except (OSError, ValueError):
            return None

    def begin(
        self, deployment: str, manifest: bytes, signed: SignedContent | None, entries: Iterable[FileEntry]
    ) -> None:
        """Make room and a place for a deployment; OSError (no space) before anything is written."""
        folder = self.folder(deployment)
        self._check_room(sum(entry.size_bytes for entry in entries if not _is_there(folder, entry)))
        self._files.make_folder(folder)
        self._files.sync_folder(folder.parent)
        if signed is not None:
            self.replace(folder / SIGNED_FILE, signed.model_dump_json().encode())
        self.replace(folder / MANIFEST_FILE, manifest)

    def missing(self, deployment: str, entries: Iterable[FileEntry]) -> list[tuple[FileEntry, ChunkMap]]:
        """What is not here yet, with the chunks of it that are."""
        folder = self.folder(deployment)
        return [(entry, _read_map(folder, entry)) for entry in entries if not _is_there(folder, entry)]

    def write_chunk(self, deployment: str, entry: FileEntry, number: int, content: bytes) -> None:
        """Put one chunk into its partial file."""
        self._files.write_at(self._part(deployment, entry), number * CHUNK_BYTES, content)

    def save_map(self, deployment: str, entry: FileEntry, chunks: ChunkMap) -> None:
        """Remember which chunks came. Not durable: a map that lies costs one more download, the hash finds it."""
        self._files.write(self.folder(deployment) / (entry.file + CHUNKS), chunks.to_bytes())

    def finish_file(self, deployment: str, entry: FileEntry) -> None:
        """Check a partial file and give it its name; ManifestError, and the part is gone, if the hash differs."""
        folder, part = self.folder(deployment), self._part(deployment, entry)
        self._files.sync(part)
        try:
            entry.check(part.read_bytes())
        except ManifestError:
            self._files.remove(folder / (entry.file + CHUNKS))
            self._files.remove(part)
            raise
        self._files.rename(part, folder / entry.file)
        self._files.sync_folder(folder)
        self._files.remove(folder / (entry.file + CHUNKS))

    def add_file(self, deployment: str, entry: FileEntry, content: bytes) -> None:
        """Store a whole file, from a local folder."""
        self._files.write(self._part(deployment, entry), content)
        self.finish_file(deployment, entry)

    def keep(self, deployments: Iterable[str]) -> None:
        """Delete all other deployments."""
        kept = set(deployments)
        for folder in sorted(self.root.glob("deployments/*")):
            if folder.name not in kept:
                # The manifest last: while it stands, the folder can still be found and deleted.
                for path in sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST_FILE):
                    self._files.remove(path)
                self._files.remove_folder(folder)

    def used_bytes(self) -> int:
        """Bytes of all files here."""
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())

    def replace(self, path: Path, content: bytes) -> None:
        """Write beside, fsync, rename, fsync the folder."""
        part = path.with_name(path.name + PART)
        self._files.write(part, content)
        self._files.sync(part)
        self._files.rename(part, path)
        self._files.sync_folder(path.parent)

    def _part(self, deployment: str, entry: FileEntry) -> Path:
        return self.folder(deployment) / (entry.file + PART)

    def _check_room(self, needed_bytes: int) -> None:
        free = shutil.disk_usage(self.root).free - RESERVE_BYTES
        where = "on the disk"
        if self._budget_bytes is not None and self._budget_bytes - self.used_bytes() < free:
            free, where = self._budget_bytes - self.used_bytes(), "in the disk budget"
        if needed_bytes > free:
            raise OSError(errno.ENOSPC, f"needs {needed_bytes} bytes, {max(0, free)} are free {where}", str(self.root))


def _is_there(folder: Path, entry: FileEntry) -> bool:
    path = folder / entry.file
    return path.is_file() and path.stat().st_size == entry.size_bytes


def _read_map(folder: Path, entry: FileEntry) -> ChunkMap:
    try:
        bits = (folder / (entry.file + CHUNKS)).read_bytes() if (folder / (entry.file + PART)).is_file() else b""
    except OSError:
        bits = b""
    return ChunkMap(entry.size_bytes, bits)
