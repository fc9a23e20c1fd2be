"""The slow stage: Debian's packages, unpacked and configured for arm64 by mmdebstrap."""

import os
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images import programs
from firmware_images.apt_sources import RASPBERRY_PI_ARCHIVE, RASPBERRY_PI_KEYRING, fetch_failure, sources_list
from firmware_images.spec import ImageSpec

# Slow under emulation or done more than once by dpkg's scripts: bytecode and initramfs are made later, once.
DIVERTED = ("/usr/bin/py3compile", "/usr/sbin/update-initramfs")
BINFMT = Path("/proc/sys/fs/binfmt_misc")


def package_options(spec: ImageSpec) -> list[str]:
    """Return mmdebstrap's options that decide what gets unpacked; dpkg lets the last matching rule win."""
    modules = "/lib/modules/*/kernel"
    rules = [f"path-exclude={modules}/{folder}/*" for folder in spec.kernel.exclude_modules]
    rules += [f"path-include={modules}/{folder}/*" for folder in spec.kernel.include_modules]
    rules += [f"path-exclude={path}" for path in spec.packages.exclude_paths]
    rules += [f"path-include={path}" for path in spec.packages.include_paths]
    # Files that we wrote beforehand stay, without a question that nobody is there to answer.
    rules += ["force-confold", "force-confdef", "force-unsafe-io"]
    return [
        f"--arch={spec.architecture}",
        "--variant=minbase",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        *[f"--dpkgopt={rule}" for rule in rules],
        f"--include={','.join(spec.packages.install)}",
    ]


def essential_hook(spec: ImageSpec) -> str:
    """Return the shell script that runs between the essential packages and the rest; $1 is the tree."""
    root_label = spec.partition("root").label
    lines = [
        "#!/bin/sh",
        "set -e",
        'mkdir -p "$1/boot/firmware" "$1/etc/default" "$1/etc/initramfs-tools/conf.d"',
        (
            f'printf \'ROOTPART="LABEL={root_label}"\\nCONSOLES="{spec.kernel.consoles}"\\n\''
            ' > "$1/etc/default/raspi-firmware"'
        ),
        "printf 'MODULES=list\\nCOMPRESS=zstd\\nFSTYPE=ext4\\n' > \"$1/etc/initramfs-tools/conf.d/nonn-edge\"",
    ]
    for program in DIVERTED:
        lines += [
            f'chroot "$1" dpkg-divert --quiet --local --add --rename --divert {program}.nonn {program}',
            f'mkdir -p "$1{Path(program).parent}"',
            f'printf \'#!/bin/sh\\nexit 0\\n\' > "$1{program}"; chmod 755 "$1{program}"',
        ]
    return "\n".join(lines) + "\n"


def build_package_tree(spec: ImageSpec, mirror: str, security: str, folder: Path) -> None:
    """Fill `folder`/root with the packages of the spec; about 7 CPU minutes on a 2-core PC."""
    if spec.base == "raspios" and not Path(RASPBERRY_PI_KEYRING).is_file():
        raise UserError(
            f'base "raspios" is built from {RASPBERRY_PI_ARCHIVE}, and its key {RASPBERRY_PI_KEYRING} is not here: '
            'install package raspberrypi-archive-keyring from there (docs/images.md), or build base "debian"',
            ExitCode.UNAVAILABLE,
        )
    programs.require(["mmdebstrap", "qemu-aarch64-static", "arch-test"])
    require_emulation()
    sources = folder / "sources.list"
    sources.write_text(sources_list(spec.suite, spec.base, mirror, security), encoding="utf-8")
    hook = folder / "essential-hook.sh"
    hook.write_text(essential_hook(spec), encoding="utf-8")
    hook.chmod(0o755)
    scratch = folder / "tmp"
    scratch.mkdir()
    command = ["mmdebstrap", "--mode=root", "--format=directory", *package_options(spec)]
    log = folder / "mmdebstrap.log"
    try:
        programs.run(
            [*command, f"--essential-hook={hook}", spec.suite, folder / "root", sources],
            log=log,
            environment={"SOURCE_DATE_EPOCH": str(spec.source_date_epoch), "TMPDIR": str(scratch)},
        )
    except UserError as error:
        reason = fetch_failure(log.read_text(encoding="utf-8")) if log.exists() else ""
        if reason:
            raise UserError(reason, ExitCode.UNAVAILABLE) from error
        raise
    scratch.rmdir()


def require_emulation() -> None:
    """UserError unless this machine runs arm64 programs, natively or through binfmt_misc."""
    if os.uname().machine == "aarch64" or (BINFMT / "qemu-aarch64").exists():
        return
    raise UserError(
        "this machine cannot run arm64 programs: install qemu-user-static; without systemd also run "
        "`mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; "
        "cat /usr/lib/binfmt.d/qemu-aarch64.conf > /proc/sys/fs/binfmt_misc/register` as root",
        ExitCode.UNAVAILABLE,
    )
