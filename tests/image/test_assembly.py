import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images import flash
from firmware_images.block_map import write_block_map
from firmware_images.cli import main
from firmware_images.disk_files import extract, image_extents, read_fat_file
from firmware_images.disk_image import assemble
from firmware_images.flash import check_target
from firmware_images.image_check import check_image
from firmware_images.partition_table import MIB, PartitionTableError, grown, lay_out, read_extents
from firmware_images.spec import ImageSpec

from .conftest import make_tree, require_tools


def test_a_tiny_tree_becomes_an_image_that_passes_its_check(tiny_spec: ImageSpec, tiny_image: Path) -> None:
    lines = check_image(tiny_spec, tiny_image)
    assert [line.split(":")[0] for line in lines] == ["partition table", "boot", "root", "data"]


def test_two_assemblies_of_equal_trees_made_at_different_times_are_equal_bytes(
    tiny_spec: ImageSpec, tiny_image: Path, tmp_path: Path
) -> None:
    time.sleep(1.1)  # mke2fs takes change times, in seconds, from the tree
    again = tmp_path / "tiny.img"
    tree = make_tree(tiny_spec, tmp_path / "content")
    for path in [*tree.rglob("*"), tree]:
        os.utime(path, (tiny_spec.source_date_epoch,) * 2, follow_symlinks=False)
    first_tree = tiny_image.parent / "content"
    for path in [*first_tree.rglob("*"), first_tree]:
        os.utime(path, (tiny_spec.source_date_epoch,) * 2, follow_symlinks=False)
    assemble(tiny_spec, tree, again)
    first = tmp_path / "first.img"
    assemble(tiny_spec, first_tree, first)
    assert _sha256(again) == _sha256(first)


def test_the_file_systems_hold_what_the_tree_held(tiny_image: Path, tmp_path: Path) -> None:
    root = tmp_path / "root.ext4"
    extents = image_extents(tiny_image)
    extract(tiny_image, extents[1], root)
    content = subprocess.run(["debugfs", "-R", "cat /etc/deep/deeper/large", root], capture_output=True, check=True)
    assert content.stdout == bytes(range(256)) * 8192
    assert (read_fat_file(tiny_image, extents[0], "config.txt") or b"").startswith(b"arm_64bit=1")


def test_content_that_does_not_fit_is_refused_with_both_sizes(tiny_spec: ImageSpec, tmp_path: Path) -> None:
    require_tools("mkfs.vfat", "mcopy", "mke2fs", "debugfs", "sfdisk")
    tree = make_tree(tiny_spec, tmp_path / "content")
    (tree / "firmware/large").write_bytes(bytes(50 * MIB))
    with pytest.raises(UserError, match="50 MiB of files do not fit into size_mib = 48"):
        assemble(tiny_spec, tree, tmp_path / "image.img")
    assert not (tmp_path / "image.img").exists()


@pytest.mark.parametrize("lost_mib", [1, 40, 100])
def test_an_image_that_was_cut_off_is_refused(tiny_spec: ImageSpec, image_copy: Path, lost_mib: int) -> None:
    os.truncate(image_copy, max(image_copy.stat().st_size - lost_mib * MIB, 4096))
    with pytest.raises(UserError, match=r"cut off: partition . ends at"):
        check_image(tiny_spec, image_copy)


def test_a_packed_image_that_was_cut_off_is_refused(tiny_spec: ImageSpec, image_copy: Path) -> None:
    require_tools("zstd")
    subprocess.run(["zstd", "-q", image_copy], check=True)
    packed = image_copy.with_name("copy.img.zst")
    assert check_image(tiny_spec, packed)
    os.truncate(packed, packed.stat().st_size // 2)
    with pytest.raises(UserError, match="damaged or cut off"):
        check_image(tiny_spec, packed)


def test_what_is_no_image_is_refused(tiny_spec: ImageSpec, tmp_path: Path) -> None:
    path = tmp_path / "holiday.img"
    path.write_bytes(bytes(10_000))
    with pytest.raises(UserError, match="boot signature 55 aa is missing; expected an SD image"):
        check_image(tiny_spec, path)


def test_a_damaged_file_system_is_found(tiny_spec: ImageSpec, image_copy: Path) -> None:
    with image_copy.open("r+b") as file:
        file.seek(image_extents(image_copy)[1].start_bytes + 4096)
        file.write(b"\xff" * 4096)  # the group descriptors
    with pytest.raises(UserError, match="e2fsck failed"):
        check_image(tiny_spec, image_copy)


def test_a_missing_boot_file_is_named(tiny_spec: ImageSpec, image_copy: Path) -> None:
    boot = image_extents(image_copy)[0]
    subprocess.run(["mdel", "-i", f"{image_copy}@@{boot.start_bytes}", "::/start4.elf"], check=True)
    with pytest.raises(UserError, match=r"boot partition lacks start4\.elf"):
        check_image(tiny_spec, image_copy)


def test_the_wrong_board_is_refused_and_the_base_that_fits_is_named(tiny_spec: ImageSpec, tiny_image: Path) -> None:
    assert check_image(tiny_spec, tiny_image, "pi3")
    with pytest.raises(UserError, match='base "debian" does not start on it'):
        check_image(tiny_spec, tiny_image, "pi5")
    with pytest.raises(UserError, match="board pi1: unknown"):
        check_image(tiny_spec, tiny_image, "pi1")


def test_bmaptool_accepts_our_block_map_and_copies_by_it(tiny_image: Path, tmp_path: Path) -> None:
    require_tools("bmaptool")
    block_map, copy = tmp_path / "tiny.bmap", tmp_path / "copy.img"
    mapped = write_block_map(tiny_image, block_map)
    assert 0 < mapped < tiny_image.stat().st_size // 4096
    subprocess.run(["bmaptool", "copy", "--bmap", block_map, tiny_image, copy], check=True, capture_output=True)
    assert _sha256(copy) == _sha256(tiny_image)


def test_flash_writes_verifies_and_puts_the_settings_on_the_card(tiny_image: Path, tmp_path: Path) -> None:
    card, settings = tmp_path / "card", tmp_path / "pi.toml"
    card.write_bytes(b"\xff" * (tiny_image.stat().st_size + MIB))
    settings.write_text('[device]\nname = "pi-a"\nstudent = 1\n[broker]\nhost = "127.0.0.1"\n')
    assert main(["flash", str(tiny_image), str(card), "--settings", str(settings), "--yes"]) == ExitCode.OK
    assert read_fat_file(card, image_extents(card)[0], "nonn-edge.toml") == settings.read_bytes()


def test_flash_refuses_an_image_for_another_board(
    tiny_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "card"
    card.write_bytes(bytes(tiny_image.stat().st_size))
    before = _sha256(card)
    words = ["flash", str(tiny_image), str(card), "--yes", "--board"]
    assert main([*words, "pi5"]) == ExitCode.BAD_INPUT
    assert "board pi5: " in (said := capsys.readouterr().err)
    assert "is for pi3, zero2w, pi4; nothing was written" in said
    assert _sha256(card) == before
    assert main([*words, "zero2w"]) == ExitCode.OK
    assert "is for pi3, zero2w, pi4" in capsys.readouterr().out


def test_flash_notices_a_card_that_forgets(tmp_path: Path) -> None:
    image, card = tmp_path / "image", tmp_path / "card"
    image.write_bytes(b"image" * MIB)
    card.write_bytes(bytes(6 * MIB))
    digest = flash._write(image, card)
    flash._verify(image, card, digest)
    with card.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"!")
    with pytest.raises(UserError, match="what was read back differs from the image; the card is worn out"):
        flash._verify(image, card, digest)


def test_flash_refuses_a_card_that_is_too_small(tmp_path: Path) -> None:
    card = tmp_path / "card"
    card.write_bytes(bytes(MIB))
    with pytest.raises(UserError, match="too small: it has 1 MiB, the image needs 2 MiB"):
        check_target(card, 2 * MIB)


def test_flash_refuses_a_mounted_card(tmp_path: Path) -> None:
    card, mounts = tmp_path / "sdx", tmp_path / "mounts"
    card.write_bytes(bytes(MIB))
    mounts.write_text(f"{card}1 /media/holiday vfat rw 0 0\n")
    with pytest.raises(UserError, match="is mounted at /media/holiday"):
        check_target(card, 10, mounts)


def test_flash_does_not_write_a_card_file_with_mistakes(
    tiny_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card, settings = tmp_path / "card", tmp_path / "pi.toml"
    shutil.copy(tiny_image, card)
    before = _sha256(card)
    settings.write_text('[device]\nname = "Pi A"\nstudent = 1\n[broker]\nhost = "127.0.0.1"\n')
    assert main(["flash", str(tiny_image), str(card), "--settings", str(settings), "--yes"]) == ExitCode.BAD_INPUT
    assert '[device] name = "Pi A": expected letters a-z' in capsys.readouterr().err
    assert _sha256(card) == before


def test_sfdisk_and_our_reader_agree_on_the_table(tiny_image: Path) -> None:
    listed = json.loads(subprocess.run(["sfdisk", "--json", tiny_image], capture_output=True, check=True).stdout)
    theirs = [(entry["start"], entry["size"]) for entry in listed["partitiontable"]["partitions"]]
    assert theirs == [(extent.start, extent.count) for extent in image_extents(tiny_image)]


def test_only_the_last_partition_grows_and_only_by_whole_mebibytes() -> None:
    extents = lay_out([("vfat", 48), ("ext4", 100), ("ext4", 64)])
    end = (extents[-1].start + extents[-1].count) * 512
    assert grown(extents, end) is None
    assert grown(extents, end + MIB - 1) is None
    larger = grown(extents, end + 10 * MIB + 12345)
    assert larger is not None
    assert larger.size_bytes == 74 * MIB


def test_a_short_first_sector_is_no_table() -> None:
    with pytest.raises(PartitionTableError):
        read_extents(b"\x55\xaa")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
