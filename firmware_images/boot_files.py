"""The stage that runs arm code: initramfs and the boot partition's files, made in a throw-away copy of the packages."""

import shutil
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images import programs
from firmware_images.package_tree import DIVERTED, require_emulation
from firmware_images.spec import ImageSpec

INITRAMFS_OVERLAY = Path(__file__).parent / "overlay" / "etc" / "initramfs-tools"
# In a mount namespace of its own: /proc goes away with it, however the script ends.
CHROOT_SCRIPT = """
set -e
mount -t proc proc "$1/proc"
chroot "$1" update-initramfs -c -k "$2"
chroot "$1" env DEB_MAINT_PARAMS=configure /etc/kernel/postinst.d/z50-raspi-firmware "$2" "/boot/vmlinuz-$2"
"""


def build_boot_files(spec: ImageSpec, packages_root: Path, folder: Path) -> None:
    """Fill `folder`/firmware with what the FAT partition holds."""
    programs.require(["qemu-aarch64-static"])
    require_emulation()
    root = folder / "scratch"
    copy_tree(packages_root, root)
    restore_diverted(root)
    version = kernel_version(root)
    shutil.copytree(INITRAMFS_OVERLAY, root / "etc/initramfs-tools", dirs_exist_ok=True)
    for script in (root / "etc/initramfs-tools").rglob("nonn-*"):
        script.chmod(0o755)
    (root / "etc/initramfs-tools/conf.d/nonn-edge").write_text("MODULES=list\nCOMPRESS=zstd\nFSTYPE=ext4\n")
    modules = root / "etc/initramfs-tools/modules"
    modules.write_text("\n".join(spec.kernel.initramfs_modules) + "\n")
    programs.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c", CHROOT_SCRIPT, "sh", root, version],
        log=folder / "initramfs.log",
        environment={"SOURCE_DATE_EPOCH": str(spec.source_date_epoch)},
    )
    firmware = folder / "firmware"
    shutil.copytree(root / "boot/firmware", firmware)
    (firmware / "cmdline.txt").write_text(command_line(spec))
    shutil.rmtree(root)


def command_line(spec: ImageSpec) -> str:
    """Return the kernel's command line: a root that nothing writes to, and the serial console of the Pi."""
    consoles = " ".join(f"console={console}" for console in spec.kernel.consoles.split())
    root = f"root=LABEL={spec.partition('root').label} ro rootwait fsck.repair=yes"
    return f"{consoles} {root} net.ifnames=0 panic=10 systemd.show_status=1\n"


def kernel_version(root: Path) -> str:
    """Return the version of the one kernel in a tree."""
    versions = sorted(path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
    if len(versions) != 1:
        raise UserError(f"{root}/boot: expected one kernel, found {versions or 'none'}", ExitCode.BAD_INPUT)
    return versions[0]


def restore_diverted(root: Path) -> None:
    """Put back the programs that the package stage replaced by nothing."""
    diversions = root / "var/lib/dpkg/diversions"
    lines = diversions.read_text().splitlines()
    kept: list[str] = []
    # dpkg keeps three lines for each: the program, where it went, who asked for it.
    for program, moved, owner in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        if program in DIVERTED:
            (root / moved.lstrip("/")).replace(root / program.lstrip("/"))
        else:
            kept += [program, moved, owner]
    diversions.write_text("".join(line + "\n" for line in kept))


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree with owners, modes, links and times; shares blocks where the file system can."""
    programs.run(["cp", "-a", "--reflink=auto", source, target])
