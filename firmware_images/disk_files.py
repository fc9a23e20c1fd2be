"""Look into an image without mounting it: partitions, files of the FAT partition, whole partitions as files."""

import hashlib
import os
import re
import subprocess
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images import programs
from firmware_images.partition_table import MIB, SECTOR_BYTES, Extent, PartitionTableError, read_extents


def image_extents(image: Path) -> list[Extent]:
    """Return the partitions of an image or a card; UserError if it is cut off or no disk image."""
    with image.open("rb") as file:
        first = file.read(SECTOR_BYTES)
        size = file.seek(0, os.SEEK_END)  # a block device's stat says 0
    try:
        extents = read_extents(first)
    except PartitionTableError as error:
        raise UserError(f"{image}: {error}; expected an SD image") from error
    if not extents:
        raise UserError(f"{image}: its partition table is empty; expected an SD image")
    for number, extent in enumerate(extents, start=1):
        end = extent.start_bytes + extent.size_bytes
        if end > size:
            raise UserError(
                f"{image}: cut off: partition {number} ends at {end / MIB:.0f} MiB, the file at {size / MIB:.0f} MiB; "
                "download or unpack it again"
            )
    return extents


def fat_argument(image: Path, extent: Extent) -> str:
    """Return how mtools names a FAT partition inside an image."""
    return f"{image}@@{extent.start_bytes}"


def fat_names(image: Path, extent: Extent) -> list[str]:
    """List the names in the FAT partition's top folder."""
    try:
        listing = programs.run(["mdir", "-b", "-i", fat_argument(image, extent), "::/"])
    except UserError as error:
        if error.exit_code == ExitCode.UNAVAILABLE:
            raise
        raise UserError(f"{image}: no FAT file system in its first partition; expected an SD image") from error
    return [line.removeprefix("::/").rstrip("/") for line in listing.splitlines() if line.startswith("::/")]


def read_fat_file(image: Path, extent: Extent, name: str) -> bytes | None:
    """Return a file of the FAT partition, or None if it has none of that name."""
    done = subprocess.run(
        ["mtype", "-i", fat_argument(image, extent), f"::/{name}"],
        capture_output=True,
        check=False,
        env={**os.environ, "PATH": programs.SEARCH_PATH},
    )
    return done.stdout if done.returncode == 0 else None


def write_fat_file(image: Path, extent: Extent, source: Path, name: str) -> None:
    """Put a file or folder into the FAT partition, replacing one of that name."""
    options = ["-o", "-s"] if source.is_dir() else ["-o"]
    programs.run(["mcopy", *options, "-i", fat_argument(image, extent), source, f"::/{name}"])


def extract(image: Path, extent: Extent, target: Path) -> None:
    """Copy one partition into a file of its own, holes kept."""
    with image.open("rb") as source, target.open("wb") as file:
        file.truncate(extent.size_bytes)
        source.seek(extent.start_bytes)
        position = 0
        while position < extent.size_bytes:
            chunk = source.read(min(4 * MIB, extent.size_bytes - position))
            if not chunk:
                break
            if chunk.count(0) != len(chunk):
                file.seek(position)
                file.write(chunk)
            position += len(chunk)


def ext4_label(partition: Path) -> str:
    """Return the volume name of an ext4 file system."""
    text = programs.run(["dumpe2fs", "-h", partition])
    found = re.search(r"^Filesystem volume name:\s+(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
