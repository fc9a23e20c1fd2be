"""Stretches the data partition to the card's end; may be cut off anywhere and is done again at the next start."""

import os
import struct
import subprocess
from pathlib import Path

from firmware_images.partition_table import SECTOR_BYTES, Extent, PartitionTableError, grown, read_extents

_COUNT_OF_ENTRY = struct.Struct("<I")
_FIRST_COUNT_OFFSET = 446 + 12
_ENTRY_BYTES = 16
MARKER = "size-of-file-system"


class GrowthError(RuntimeError):
    """The data partition keeps its size; says why."""


def grow_data(mount_point: Path, system: Path = Path("/sys/class/block"), mounts: Path = Path("/proc/mounts")) -> str:
    """Grow partition and file system of `mount_point`; return what was done, or nothing."""
    device = mounted_device(mounts.read_text(), str(mount_point))
    if device is None or not device.startswith("/dev/"):
        return ""
    partition = Path(device).name
    number = int((system / partition / "partition").read_text())
    disk = (system / partition).resolve().parent.name
    disk_bytes = int((system / disk / "size").read_text()) * SECTOR_BYTES
    stretched = stretch_entry(Path("/dev") / disk, number, disk_bytes)
    if stretched is not None:
        _run(["partx", "--update", "--nr", str(number), f"/dev/{disk}"])
    size = (system / partition / "size").read_text().strip()
    marker = mount_point / MARKER
    if marker.exists() and marker.read_text().strip() == size:
        return ""
    _run(["resize2fs", device])
    marker.write_text(size + "\n")
    return f"data partition is now {int(size) * SECTOR_BYTES >> 20} MiB"


def mounted_device(mounts: str, mount_point: str) -> str | None:
    r"""Return what is mounted at `mount_point`, from the text of /proc/mounts.

    >>> mounted_device("/dev/mmcblk0p3 /data ext4 rw 0 0\n", "/data")
    '/dev/mmcblk0p3'
    """
    fields = [line.split() for line in mounts.splitlines()]
    found = [field[0] for field in fields if len(field) > 1 and field[1] == mount_point]
    return found[-1] if found else None


def stretch_entry(disk: Path, number: int, disk_bytes: int) -> Extent | None:
    """Write the larger size into the partition table: four bytes of one sector, so there is no half-way."""
    descriptor = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        sector = bytearray(os.pread(descriptor, SECTOR_BYTES, 0))
        extents = read_extents(bytes(sector))
        if number != len(extents):
            raise GrowthError(f"{disk}: partition {number} is not the last one")
        stretched = grown(extents, disk_bytes)
        if stretched is None:
            return None
        _COUNT_OF_ENTRY.pack_into(sector, _FIRST_COUNT_OFFSET + (number - 1) * _ENTRY_BYTES, stretched.count)
        os.pwrite(descriptor, sector, 0)
        os.fsync(descriptor)
    except PartitionTableError as error:
        raise GrowthError(f"{disk}: {error}") from error
    else:
        return stretched
    finally:
        os.close(descriptor)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GrowthError(f"{command[0]}: {done.stderr.strip() or done.returncode}")
