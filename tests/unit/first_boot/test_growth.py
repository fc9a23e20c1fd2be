"""The data partition grows to the card's end."""

import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_images.first_boot.growth import GrowthError, stretch_entry
from firmware_images.partition_table import MIB, lay_out, read_extents, sfdisk_script


def test_the_last_entry_of_the_table_is_stretched_to_the_disks_end(tmp_path: Path) -> None:
    disk = _disk(tmp_path, 300)
    stretched = stretch_entry(disk, 3, 300 * MIB)
    assert stretched is not None
    assert read_extents(disk.read_bytes()[:512])[-1] == stretched
    assert stretched.start_bytes + stretched.size_bytes == 300 * MIB
    assert stretch_entry(disk, 3, 300 * MIB) is None


def test_another_partition_is_never_stretched(tmp_path: Path) -> None:
    disk = _disk(tmp_path, 300)
    before = disk.read_bytes()[:512]
    with pytest.raises(GrowthError, match="partition 2 is not the last one"):
        stretch_entry(disk, 2, 300 * MIB)
    assert disk.read_bytes()[:512] == before


def _disk(folder: Path, size_mib: int) -> Path:
    if shutil.which("sfdisk", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip("needs sfdisk")
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(size_mib * MIB)
    script = sfdisk_script(lay_out([("vfat", 48), ("ext4", 64), ("ext4", 33)]), "ed9eb007")
    subprocess.run(["sfdisk", "--quiet", disk], input=script.encode(), check=True, env={"PATH": "/usr/sbin:/sbin"})
    return disk
