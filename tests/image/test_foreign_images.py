"""Disk images that are none of ours: refused in one line before the first byte is written."""

import struct
import subprocess
from pathlib import Path

import pytest

from edge_agent.console.exit_codes import ExitCode
from firmware_images.cli import main
from firmware_images.partition_table import MIB

from .conftest import require_tools


def disk(path: Path, *partitions: tuple[int, int, int]) -> Path:
    """A disk of 8 MiB; partitions: (type, first sector, sectors)."""
    entries = [struct.pack("<B3sB3sII", 0, b"", kind, b"", start, count) for kind, start, count in partitions]
    sector = bytes(446) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"
    path.write_bytes(sector.ljust(8 * MIB, b"\0"))
    return path


@pytest.fixture(params=["empty", "ext4 first", "FAT without boot files"])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    require_tools("mdir", "mkfs.vfat")
    image = tmp_path / "foreign.img"
    if request.param == "empty":
        return disk(image), "its partition table is empty; expected an SD image"
    if request.param == "ext4 first":
        return disk(image, (0x83, 2048, 4096)), "no FAT file system in its first partition; expected an SD image"
    disk(image, (0x0C, 2048, 8192))
    made = ["/sbin/mkfs.vfat", "--offset", "2048", "-F", "12", str(image), "4096"]
    subprocess.run(made, check=True, capture_output=True)
    return image, "no Raspberry Pi finds its boot files there"


@pytest.mark.parametrize("command", ["flash", "check", "boot-test"])
def test_it_is_refused_in_one_line(
    foreign: tuple[Path, str], command: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, words = foreign
    card = tmp_path / "card"
    card.write_bytes(b"\xff" * 16 * MIB)
    if command == "boot-test":
        require_tools("qemu-system-aarch64", "mosquitto", "e2fsck")
    rest = {
        "flash": [str(card), "--yes"],
        "check": [],
        "boot-test": ["--deployment", str(tiny), "--work", str(tmp_path)],
    }
    assert main([command, str(image), *rest[command]]) in (ExitCode.BAD_INPUT, ExitCode.FAILED)
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    if command == "flash":
        assert words in said
    assert card.read_bytes() == b"\xff" * 16 * MIB
