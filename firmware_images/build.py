"""nonn-image build: from the spec to a compressed image with checksums, block map, bill of materials and catalogue."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images.boot_files import INITRAMFS_OVERLAY, build_boot_files, command_line
from firmware_images.disk_image import assemble
from firmware_images.package_tree import build_package_tree, essential_hook, package_options
from firmware_images.release_files import ReleaseOptions, write_release
from firmware_images.spec import ImageSpec, fingerprint
from firmware_images.stages import StageCache
from firmware_images.tree_content import OVERLAY, UNITS, build_content
from firmware_images.wheels import (
    REPOSITORY,
    build_our_wheel,
    download_tvm_runtime,
    download_wheels,
    require_clone,
    source_fingerprint,
)

CONTENT_VERSION = 1  # raise it when a stage's code changes what the stage produces

# Packages, their copy with content, the image and its packed form: 2.8 GB measured.
NEEDED_BYTES = 3500 * 1024 * 1024


@dataclass(frozen=True)
class BuildOptions:
    """Where things lie and what to do again."""

    cache: Path
    output: Path
    mirror: str
    security_mirror: str
    fresh: frozenset[str] = frozenset()
    release: ReleaseOptions = field(default_factory=ReleaseOptions)


def build_image(spec: ImageSpec, spec_folder: Path, options: BuildOptions) -> Path:
    """Run the stages and return the image; every stage that is unchanged comes from the cache."""
    if os.geteuid() != 0:
        raise UserError(
            "build unpacks files that belong to root: run it as root, or in a user namespace: "
            "unshare --user --map-root-user --map-auto nonn-image build ...",
            ExitCode.USAGE,
        )
    for folder in (options.cache, options.output):
        require_space(folder)
    stages = StageCache(options.cache)
    content = build_tree(spec, spec_folder, options, stages)
    assembled = stages.step(
        "image",
        [CONTENT_VERSION, content.name, spec.model_dump(), _hash_of_code("disk_image.py", "partition_table.py")],
        lambda folder: assemble(spec, content, folder / f"{spec.name}.img"),
        fresh="image" in options.fresh,
    )
    image = options.output / f"{spec.name}.img"
    options.output.mkdir(parents=True, exist_ok=True)
    write_release(spec, assembled / image.name, content, options.output, options.release, stages.say)
    return image


def build_tree(spec: ImageSpec, spec_folder: Path, options: BuildOptions, stages: StageCache) -> Path:
    """Run the stages up to the three folders that become the partitions."""
    require_clone()
    epoch = spec.source_date_epoch
    lock = existing_lock(spec_folder, spec.wheels.lock)
    packages = stages.step(
        "packages",
        [spec.suite, spec.base, epoch, package_options(spec), essential_hook(spec)],
        lambda folder: build_package_tree(spec, options.mirror, options.security_mirror, folder),
        fresh="packages" in options.fresh,
    )
    boot = stages.step(
        "boot-files",
        [packages.name, epoch, spec.kernel.model_dump(), command_line(spec), _hash_of(INITRAMFS_OVERLAY)],
        lambda folder: build_boot_files(spec, packages / "root", folder),
        fresh="boot-files" in options.fresh,
    )
    wheels = stages.step(
        "wheels",
        [spec.wheels.python, lock.read_text()],
        lambda folder: download_wheels(spec.wheels.python, lock, folder),
    )
    tvm = _tvm_runtime(spec, spec_folder, stages)
    ours = stages.step("our-wheel", [epoch, source_fingerprint()], lambda folder: build_our_wheel(spec, folder))
    deployment = _hash_of(REPOSITORY / spec.deployment) if spec.deployment else ""
    inputs = [
        CONTENT_VERSION, packages.name, boot.name, wheels.name, tvm.name if tvm else "", ours.name, deployment,
        _hash_of(OVERLAY), _hash_of(UNITS), spec.services.model_dump(), spec.default_role,
        _hash_of_code("tree_content.py"),
    ]  # fmt: skip
    return stages.step(
        "content",
        inputs,
        lambda folder: build_content(
            spec,
            packages / "root",
            boot / "firmware",
            sorted(wheels.glob("*.whl")),
            next(ours.glob("*.whl")),
            tvm,
            folder,
        ),
        fresh="content" in options.fresh,
    )


def _tvm_runtime(spec: ImageSpec, spec_folder: Path, stages: StageCache) -> Path | None:
    if spec.wheels.tvm_lock is None:
        return None
    lock = existing_lock(spec_folder, spec.wheels.tvm_lock)
    inputs = [spec.wheels.python, lock.read_text()]
    return stages.step("tvm-runtime", inputs, lambda folder: download_tvm_runtime(spec.wheels.python, lock, folder))


def existing_lock(spec_folder: Path, name: str) -> Path:
    """Return a lock file beside the spec; UserError where there is none."""
    lock = spec_folder / name
    if not lock.is_file():
        raise UserError(f"{lock}: not found; expected the wheels' lock file beside the spec", ExitCode.CONFIGURATION)
    return lock


def _hash_of(folder: Path) -> str:
    """Return a fingerprint of a folder's names, modes and bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return fingerprint(
        [(path.relative_to(folder).as_posix(), path.stat().st_mode & 0o100, path.read_bytes().hex()) for path in files]
    )


def _hash_of_code(*names: str) -> str:
    return fingerprint([(Path(__file__).parent / name).read_text() for name in names])


def require_space(folder: Path) -> None:
    """UserError before the first minute if the disk would fill up on the way."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < NEEDED_BYTES:
        raise UserError(
            f"{place}: {free >> 20} MiB free, a build needs {NEEDED_BYTES >> 20} MiB; make room or name another folder",
            ExitCode.IO_ERROR,
        )
