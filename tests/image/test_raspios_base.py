"""Base "raspios": nothing of it can be built without Raspberry Pi's archive; what holds without it is tested here."""

from pathlib import Path

import pytest

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images import package_tree, programs
from firmware_images.apt_sources import DEFAULT_MIRROR, DEFAULT_SECURITY, fetch_failure, sources_list
from firmware_images.boot_files import RASPIOS_CONFIG, command_line, kernel_versions
from firmware_images.disk_image import ASSEMBLY_TOOLS, assemble
from firmware_images.image_check import boot_files_of, check_image
from firmware_images.package_tree import build_package_tree, package_options
from firmware_images.spec import DEFAULT_SPEC, SPEC_FOLDER, ImageSpec, load_spec

from .conftest import make_tree, require_tools

NAME = "archive.raspberrypi.com"
# As apt said it where this archive has no name.
APT_SAID = f"""\
Err:1 http://{NAME}/debian bookworm InRelease
  Could not resolve '{NAME}'
Reading package lists...
E: Failed to fetch http://{NAME}/debian/dists/bookworm/InRelease  Could not resolve '{NAME}'
E: Some index files failed to download. They have been ignored, or old ones used instead.
"""


@pytest.fixture
def spec() -> ImageSpec:
    return load_spec(SPEC_FOLDER / "raspios.toml")


def test_the_spec_has_cameras_every_board_and_the_services_of_the_other(spec: ImageSpec) -> None:
    debian = load_spec(DEFAULT_SPEC)
    assert set(spec.boards) == {"pi3", "zero2w", "pi4", "pi5"}
    assert {"python3-picamera2", "linux-image-rpi-v8", "linux-image-rpi-2712"} <= set(spec.packages.install)
    assert "linux-image-arm64" not in spec.packages.install
    # What a CSI camera is made of stays.
    assert not [path for path in spec.kernel.exclude_modules if path.startswith(("drivers/media", "drivers/staging"))]
    assert (spec.services, spec.wheels) == (debian.services, debian.wheels)
    assert {p.uuid for p in spec.partitions}.isdisjoint(p.uuid for p in debian.partitions)
    sources = sources_list(spec.suite, spec.base, DEFAULT_MIRROR, DEFAULT_SECURITY).splitlines()
    assert sources[-1].endswith("raspberrypi-archive-keyring.gpg] http://archive.raspberrypi.com/debian bookworm main")
    assert any("python3-picamera2" in option for option in package_options(spec))


def test_a_build_without_the_archives_key_says_so_before_the_first_minute(
    spec: ImageSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_tree, "RASPBERRY_PI_KEYRING", str(tmp_path / "keyring.gpg"))
    with pytest.raises(UserError, match=r"archive\.raspberrypi\.com/debian, and its key \S+ is not here") as caught:
        build_package_tree(spec, DEFAULT_MIRROR, DEFAULT_SECURITY, tmp_path)
    assert caught.value.exit_code == ExitCode.UNAVAILABLE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (APT_SAID, "Could not resolve 'archive.raspberrypi.com'; base \"raspios\" is built where this archive"),
        (APT_SAID.replace(NAME, "deb.example"), "name a mirror that this machine reaches"),
    ],
)
def test_an_archive_out_of_reach_is_named_in_one_line(
    spec: ImageSpec, said: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mmdebstrap(command: object, *, log: Path, environment: object) -> str:
        log.write_text(said)
        raise UserError("mmdebstrap failed with 25: E: mmdebstrap failed to run", ExitCode.FAILED)

    monkeypatch.setattr(package_tree, "RASPBERRY_PI_KEYRING", __file__)
    monkeypatch.setattr(package_tree, "require_emulation", lambda: None)
    monkeypatch.setattr(programs, "require", lambda _: None)
    monkeypatch.setattr(programs, "run", mmdebstrap)
    with pytest.raises(UserError) as caught:
        build_package_tree(spec, DEFAULT_MIRROR, DEFAULT_SECURITY, tmp_path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.UNAVAILABLE


def test_other_failures_are_not_taken_for_the_network() -> None:
    assert fetch_failure("dpkg: error processing package mosquitto (--configure)") == ""


@pytest.mark.parametrize("gone", ["", "kernel_2712.img", "initramfs8", "bcm2710-rpi-3-b.dtb"])
def test_an_image_of_its_layout_is_checked_for_what_each_board_loads(
    spec: ImageSpec, gone: str, tmp_path: Path
) -> None:
    require_tools(*ASSEMBLY_TOOLS, "dumpe2fs", "mdir")
    boot, root, data = spec.partitions
    smaller = (boot.model_copy(update={"size_mib": 48}), root, data.model_copy(update={"size_mib": 33}))
    spec = spec.model_copy(update={"partitions": smaller})
    content = make_tree(spec, tmp_path / "content")
    for name in set().union(*(boot_files_of("raspios", board) for board in spec.boards)) - {gone}:
        (content / "firmware" / name).write_bytes(b"x")
    (content / "firmware/config.txt").write_text(RASPIOS_CONFIG)
    (content / "firmware/cmdline.txt").write_text(command_line(spec))
    image = tmp_path / "raspios.img"
    assemble(spec, content, image)
    if gone:
        with pytest.raises(UserError, match=f"the boot partition lacks {gone}"):
            check_image(spec, image)
    else:
        assert "boards pi3, zero2w, pi4, pi5" in "\n".join(check_image(spec, image))
        assert check_image(spec, image, "pi5")


def test_a_tree_with_another_number_of_kernels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-6.12-rpi-v8").touch()
    assert kernel_versions(tmp_path, 1) == ["6.12-rpi-v8"]
    with pytest.raises(UserError, match=r"expected 2 kernel\(s\), found 6.12-rpi-v8"):
        kernel_versions(tmp_path, 2)
