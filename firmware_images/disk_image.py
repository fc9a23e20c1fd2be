"""Three folders become one disk image: no loop device, no mount, no privileges, the same bytes every time."""

import os
import shutil
import stat
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images import programs
from firmware_images.partition_table import MIB, lay_out, sfdisk_script
from firmware_images.spec import ImageSpec, Partition

ASSEMBLY_TOOLS = ("mkfs.vfat", "mcopy", "mke2fs", "e2fsck", "debugfs", "sfdisk")
COPY_BYTES = 4 * MIB
EXT4_INODE_BYTES = 256
FIRST_FREE_INODE = 11


def assemble(spec: ImageSpec, content: Path, image: Path) -> None:
    """Write `image` from the folders firmware, root and data in `content`."""
    programs.require(ASSEMBLY_TOOLS)
    scratch = image.with_suffix(".parts")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        parts: list[tuple[str, int, Path]] = []
        for partition, name in zip(spec.partitions, ("firmware", "root", "data"), strict=True):
            tree = content / name
            file = scratch / partition.name
            size_mib = partition_size_mib(partition, tree)
            if partition.filesystem == "vfat":
                make_fat(spec, partition, tree, file, size_mib)
            else:
                make_ext4(spec, partition, tree, file, size_mib)
            parts.append((partition.filesystem, size_mib, file))
        write_disk(spec, parts, scratch / "disk")
        (scratch / "disk").replace(image)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def partition_size_mib(partition: Partition, tree: Path) -> int:
    """Return the size the spec asks for, or what the content needs; UserError if the content does not fit."""
    needed = content_bytes(tree)
    if partition.size_mib is None:
        # Inode tables and the journal take about 24 MiB and two bytes in a hundred.
        return needed * (100 + partition.spare_percent) // 100 // MIB + 32
    if needed > partition.size_mib * MIB:
        raise UserError(
            f"partition {partition.name}: {needed / MIB:.0f} MiB of files do not fit into size_mib = "
            f"{partition.size_mib}",
            ExitCode.CONFIGURATION,
        )
    return partition.size_mib


def content_bytes(tree: Path) -> int:
    """Return what the files of a tree take in blocks of 4 KiB; hard links count once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for path in [tree, *tree.rglob("*")]:
        status = path.lstat()
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += -(-status.st_size // 4096) * 4096 if not stat.S_ISDIR(status.st_mode) else 4096
    return total


def make_fat(spec: ImageSpec, partition: Partition, tree: Path, file: Path, size_mib: int) -> None:
    """Make a FAT32 file system of a folder; sorted, so that the directory's order does not follow the disk's."""
    epoch = {"SOURCE_DATE_EPOCH": str(spec.source_date_epoch)}
    _empty_file(file, size_mib)
    serial = partition.uuid.replace("-", "")[:8]
    programs.run(
        ["mkfs.vfat", "-F", "32", "-s", "1", "-n", partition.label, "-i", serial, "--invariant", file],
        environment=epoch,
    )
    names = sorted(tree.iterdir())
    if names:
        programs.run(["mcopy", "-i", file, "-s", "-p", "-m", *names, "::"], environment=epoch)


def make_ext4(spec: ImageSpec, partition: Partition, tree: Path, file: Path, size_mib: int) -> None:
    """Make an ext4 file system of a folder and check it."""
    environment = {
        "E2FSPROGS_FAKE_TIME": str(spec.source_date_epoch),
        "SOURCE_DATE_EPOCH": str(spec.source_date_epoch),
    }
    _empty_file(file, size_mib)
    extended = f"hash_seed={partition.uuid},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"
    # resize_inode's reserve lets the data partition grow to 1 TB while it is mounted.
    command: list[str | Path] = ["mke2fs", "-q", "-F", "-t", "ext4", "-I", str(EXT4_INODE_BYTES), "-L", partition.label]
    command += ["-U", partition.uuid, "-m", "1", "-E", extended, "-d", tree, file]
    programs.run(command, environment=environment)
    _settle_times(spec, file, environment)
    programs.run(["e2fsck", "-f", "-n", file], environment=environment)


def _settle_times(spec: ImageSpec, file: Path, environment: dict[str, str]) -> None:
    """Replace the times that mke2fs took from the build machine: change and access times of every inode."""
    summary = programs.run(["debugfs", "-R", "stats -h", file], environment=environment)
    fields = dict(line.split(":", 1) for line in summary.splitlines() if ":" in line)
    used = int(fields["Inode count"]) - int(fields["Free inodes"])
    fields_to_set = dict.fromkeys(("ctime", "atime", "crtime"), f"@{spec.source_date_epoch}")
    fields_to_set |= dict.fromkeys(("ctime_extra", "atime_extra", "mtime_extra", "crtime_extra"), "0")
    lines = [
        f"set_inode_field <{inode}> {field} {value}"
        for inode in [2, *range(FIRST_FREE_INODE, used + 1)]
        for field, value in fields_to_set.items()
    ]
    said = programs.run(["debugfs", "-w", "-f", "-", file], stdin="\n".join(lines) + "\n", environment=environment)
    # debugfs ends with 0 whatever happens; a refused command is a line without its prompt.
    refused = [line for line in said.splitlines() if line and not line.startswith("debugfs")]
    if refused:
        raise UserError(f"debugfs: {refused[0]}", ExitCode.INTERNAL)


def write_disk(spec: ImageSpec, parts: list[tuple[str, int, Path]], disk: Path) -> None:
    """Write the partition table and copy the partitions behind it, leaving holes where they are empty."""
    extents = lay_out([(kind, size_mib) for kind, size_mib, _ in parts])
    last = extents[-1]
    with disk.open("wb") as file:
        file.truncate(last.start_bytes + last.size_bytes)
    disk_id = spec.partition("boot").uuid.replace("-", "")[:8]
    programs.run(["sfdisk", "--quiet", disk], stdin=sfdisk_script(extents, disk_id))
    with disk.open("r+b") as target:
        for extent, (_, _, source) in zip(extents, parts, strict=True):
            _copy_sparse(source, target.fileno(), extent.start_bytes)


def _copy_sparse(source: Path, target: int, offset: int) -> None:
    with source.open("rb") as file:
        while chunk := file.read(COPY_BYTES):
            if chunk.count(0) != len(chunk):
                os.pwrite(target, chunk, offset)
            offset += len(chunk)


def _empty_file(path: Path, size_mib: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
