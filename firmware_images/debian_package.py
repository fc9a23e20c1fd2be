"""nonn-image deb: agent and coordinator as a Debian package for stock Raspberry Pi OS; no arm code runs."""

import hashlib
import os
import shutil
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images import programs
from firmware_images.build import existing_lock
from firmware_images.spec import SPEC_FOLDER, ImageSpec
from firmware_images.stages import StageCache
from firmware_images.tree_content import PROGRAM_FOLDER, SITE, install_units, place, write_program
from firmware_images.wheels import (
    LAUNCHERS,
    REPOSITORY,
    build_our_wheel,
    console_scripts,
    download_tvm_runtime,
    download_wheels,
    launcher,
    require_clone,
    source_fingerprint,
    unpack_wheel,
)

SCRIPTS = Path(__file__).parent / "debian"
VENV_PYTHON = f"/{PROGRAM_FOLDER}/venv/bin/python3"
SETUP_ENTRY = "firmware_images.first_boot.setup_command:main"
# Compiled against the NumPy that Debian's camera modules use too: another one beside it would break picamera2.
FROM_DEBIAN = ("numpy",)


@dataclass(frozen=True)
class DebianSuite:
    """What a release of Debian, and the Raspberry Pi OS made of it, decides."""

    name: str
    number: int
    python: str
    lock: str


SUITES = {
    "bookworm": DebianSuite("bookworm", 12, "3.11", "nonn-edge.wheels.txt"),
    "trixie": DebianSuite("trixie", 13, "3.13", "nonn-edge.trixie.wheels.txt"),
}


def build_package(spec: ImageSpec, suite: DebianSuite, cache: Path, output: Path) -> Path:
    """Build the package for one suite into `output`; return its path."""
    require_clone()
    programs.require(["dpkg-deb"])
    stages = StageCache(cache)
    lock = existing_lock(SPEC_FOLDER, suite.lock)
    wheels = stages.step(
        f"wheels-{suite.name}",
        [suite.python, lock.read_text()],
        lambda folder: download_wheels(suite.python, lock, folder),
    )
    if spec.wheels.tvm_lock is None:
        raise UserError("the spec has no tvm_lock; the package brings TVM's runtime", ExitCode.CONFIGURATION)
    tvm_lock = existing_lock(SPEC_FOLDER, spec.wheels.tvm_lock)
    tvm = stages.step(
        "tvm-runtime",
        [spec.wheels.python, tvm_lock.read_text()],
        lambda folder: download_tvm_runtime(spec.wheels.python, tvm_lock, folder),
    )
    inputs = [spec.source_date_epoch, source_fingerprint()]
    ours = stages.step("our-wheel", inputs, lambda folder: build_our_wheel(spec, folder))
    version = f"{project_version()}~deb{suite.number}"
    tree = output / f".nonn-edge-{suite.name}.tree"
    shutil.rmtree(tree, ignore_errors=True)
    try:
        fill_tree(tree, wheels.glob("*.whl"), next(ours.glob("*.whl")), tvm.iterdir())
        write_control(tree, suite, version)
        return pack(tree, output / f"nonn-edge_{version}_arm64.deb", spec.source_date_epoch)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def project_version() -> str:
    """Return the version of pyproject.toml."""
    return str(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"])


def fill_tree(tree: Path, wheels: Iterable[Path], our_wheel: Path, tvm: Iterable[Path]) -> None:
    """Lay out what the package installs: the same units and programs as on the image."""
    install_units(tree)
    site = tree / SITE.lstrip("/")
    for wheel in [*sorted(wheels), our_wheel]:
        if wheel.name.split("-")[0] not in FROM_DEBIAN:
            unpack_wheel(wheel, site)
    for path in sorted(tvm):
        place(path, tree / PROGRAM_FOLDER / path.name)
    scripts = console_scripts(our_wheel)
    for name in LAUNCHERS:
        write_program(tree / "usr/bin" / name, launcher(scripts[name], SITE, VENV_PYTHON))
    write_program(tree / "usr/sbin/nonn-edge-setup", launcher(SETUP_ENTRY, SITE, VENV_PYTHON))
    licence = tree / "usr/share/doc/nonn-edge/copyright"
    licence.parent.mkdir(parents=True)
    shutil.copyfile(REPOSITORY / "LICENSE", licence)


def write_control(tree: Path, suite: DebianSuite, version: str) -> None:
    """Write control file, maintainer scripts and the checksums that `dpkg --verify` compares."""
    control = tree / "DEBIAN"
    control.mkdir()
    files = [path for path in sorted(tree.rglob("*")) if path.is_file()]
    major, minor = suite.python.split(".")
    values = {
        "VERSION": version,
        "INSTALLED_KIB": str(sum(path.stat().st_size for path in files) // 1024),
        "PYTHON": suite.python,
        "NEXT_PYTHON": f"{major}.{int(minor) + 1}",
        "SUITE": f"{suite.number} ({suite.name})",
    }
    text = (SCRIPTS / "control.in").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    (control / "control").write_text(text)
    for name in ("postinst", "prerm", "postrm"):
        write_program(control / name, (SCRIPTS / name).read_text())
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files]  # noqa: S324
    (control / "md5sums").write_text("".join(sums))


def pack(tree: Path, target: Path, epoch: int) -> Path:
    """Make the .deb: root owns everything, every time stamp is the spec's, so equal trees give equal bytes."""
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch))
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".part")
    # Debian 12's dpkg is the first that reads zstd: a third of xz's time on a Pi. One thread: one way to cut blocks.
    command: list[str | Path] = ["dpkg-deb", "--root-owner-group", "-Zzstd", "-z12", "--threads-max=1"]
    programs.run([*command, "--build", tree, fresh], environment={"SOURCE_DATE_EPOCH": str(epoch)})
    fresh.replace(target)
    return target
