"""A tiny image that has every part of a real one: seconds to make, no network, no privileges."""

import shutil
from pathlib import Path

import pytest

from firmware_images import programs
from firmware_images.boot_files import command_line
from firmware_images.disk_image import ASSEMBLY_TOOLS, assemble
from firmware_images.first_boot.card_template import card_template
from firmware_images.spec import DEFAULT_SPEC, ImageSpec, load_spec


def require_tools(*names: str) -> None:
    missing = [name for name in names if not programs.is_installed(name)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} on PATH")


@pytest.fixture(scope="session")
def tiny_spec() -> ImageSpec:
    spec = load_spec(DEFAULT_SPEC)
    boot, root, data = spec.partitions
    smaller = (boot.model_copy(update={"size_mib": 48}), root, data.model_copy(update={"size_mib": 33}))
    return spec.model_copy(update={"partitions": smaller})


def make_tree(spec: ImageSpec, folder: Path) -> Path:
    """Three folders as the content stage leaves them, with a file, a link, an empty file and a deep folder."""
    firmware, root, data = folder / "firmware", folder / "root", folder / "data"
    for path in (firmware, root / "etc/deep/deeper", data / "overlay"):
        path.mkdir(parents=True)
    for name in ("bootcode.bin", "start.elf", "start4.elf", "vmlinuz-6.1", "initrd.img-6.1"):
        (firmware / name).write_bytes(name.encode() * 50)
    for name in ("bcm2837-rpi-3-b.dtb", "bcm2837-rpi-zero-2-w.dtb", "bcm2711-rpi-4-b.dtb"):
        (firmware / name).write_bytes(b"\xd0\x0d\xfe\xed")
    (firmware / "config.txt").write_text("arm_64bit=1\nkernel=vmlinuz-6.1\ninitramfs initrd.img-6.1\n")
    (firmware / "cmdline.txt").write_text(command_line(spec))
    (firmware / "nonn-edge.toml").write_text(card_template("agent"))
    (root / "etc/hostname").write_text("nonn-edge\n")
    (root / "etc/empty").touch()
    (root / "etc/deep/deeper/large").write_bytes(bytes(range(256)) * 8192)
    (root / "etc/link").symlink_to("deep/deeper/large")
    return folder


@pytest.fixture(scope="session")
def tiny_image(tiny_spec: ImageSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_tools(*ASSEMBLY_TOOLS, "dumpe2fs", "mdir")
    folder = tmp_path_factory.mktemp("tiny")
    image = folder / "tiny.img"
    assemble(tiny_spec, make_tree(tiny_spec, folder / "content"), image)
    return image


@pytest.fixture
def image_copy(tiny_image: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_image, tmp_path / "copy.img"))
