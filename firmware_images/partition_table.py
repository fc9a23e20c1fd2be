"""MBR partition tables, read and laid out: pure arithmetic on sectors."""

import struct
from dataclasses import dataclass

SECTOR_BYTES = 512
MIB = 1024 * 1024
FIRST_SECTOR = 8192  # 4 MiB: whole erase blocks of every common card come before it
TYPES = {"vfat": 0x0C, "ext4": 0x83}
_ENTRY = struct.Struct("<B3sB3sII")
_TABLE_OFFSET = 446
_SIGNATURE = b"\x55\xaa"


class PartitionTableError(ValueError):
    """A disk's first sector that is no MBR, or not one of ours."""


@dataclass(frozen=True)
class Extent:
    """Where a partition lies, in sectors of 512 bytes."""

    kind: int
    start: int
    count: int

    @property
    def start_bytes(self) -> int:
        """Offset of the first byte."""
        return self.start * SECTOR_BYTES

    @property
    def size_bytes(self) -> int:
        """Length in bytes."""
        return self.count * SECTOR_BYTES


def read_extents(sector: bytes) -> list[Extent]:
    """Return the partitions of a disk's first 512 bytes.

    >>> read_extents(bytes(512))
    Traceback (most recent call last):
    firmware_images.partition_table.PartitionTableError: no partition table: the boot signature 55 aa is missing
    """
    if len(sector) < SECTOR_BYTES or sector[510:512] != _SIGNATURE:
        raise PartitionTableError("no partition table: the boot signature 55 aa is missing")
    found = []
    for number in range(4):
        _, _, kind, _, start, count = _ENTRY.unpack_from(sector, _TABLE_OFFSET + number * _ENTRY.size)
        if kind:
            found.append(Extent(kind, start, count))
    return found


def lay_out(kinds_and_sizes: list[tuple[str, int]]) -> list[Extent]:
    """Place partitions (file system, size in MiB) one behind the other.

    >>> [extent.start for extent in lay_out([("vfat", 256), ("ext4", 500)])]
    [8192, 532480]
    """
    extents = []
    start = FIRST_SECTOR
    for kind, size_mib in kinds_and_sizes:
        count = size_mib * MIB // SECTOR_BYTES
        extents.append(Extent(TYPES[kind], start, count))
        start += count
    return extents


def sfdisk_script(extents: list[Extent], disk_id: str) -> str:
    """Return what sfdisk reads to write this table."""
    lines = ["label: dos", f"label-id: 0x{disk_id}", "unit: sectors"]
    for number, extent in enumerate(extents):
        bootable = ", bootable" if number == 0 else ""
        lines.append(f"start={extent.start}, size={extent.count}, type={extent.kind:x}{bootable}")
    return "\n".join(lines) + "\n"


def grown(extents: list[Extent], disk_bytes: int) -> Extent | None:
    """Return the last partition stretched to the disk's end, or None where it reaches there already.

    A rest below one MiB is left alone: nothing would fit into it.
    """
    last = extents[-1]
    count = disk_bytes // SECTOR_BYTES - last.start
    count -= count % (MIB // SECTOR_BYTES)
    return Extent(last.kind, last.start, count) if count > last.count else None
