"""The stage that runs arm code: initramfs and the boot partition's files, made in a throw-away copy of the packages."""

import shutil
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images import programs
from firmware_images.package_tree import DIVERTED, require_emulation
from firmware_images.spec import ImageSpec

INITRAMFS_OVERLAY = Path(__file__).parent / "overlay" / "etc" / "initramfs-tools"
KERNELS_OF_BASE = {"debian": 1, "raspios": 2}  # Raspberry Pi has one for the Pi 5 alone
# In a mount namespace of its own: /proc goes away with it, however the script ends.
CHROOT_SCRIPT = """
set -e
mount -t proc proc "$1/proc"
root=$1; shift
hook=/etc/kernel/postinst.d/z50-raspi-firmware
for version; do
  chroot "$root" update-initramfs -c -k "$version"
  chroot "$root" env DEB_MAINT_PARAMS=configure $hook "$version" "/boot/vmlinuz-$version"
done
"""
# Debian's raspi-firmware writes this file; Raspberry Pi's leaves it to whoever makes the image.
RASPIOS_CONFIG = """\
# The firmware takes kernel8.img and initramfs8, a Pi 5 kernel_2712.img and initramfs_2712.
arm_64bit=1
auto_initramfs=1
camera_auto_detect=1
enable_uart=1
"""


def build_boot_files(spec: ImageSpec, packages_root: Path, folder: Path) -> None:
    """Fill `folder`/firmware with what the FAT partition holds."""
    programs.require(["qemu-aarch64-static"])
    require_emulation()
    root = folder / "scratch"
    copy_tree(packages_root, root)
    restore_diverted(root)
    versions = kernel_versions(root, KERNELS_OF_BASE[spec.base])
    shutil.copytree(INITRAMFS_OVERLAY, root / "etc/initramfs-tools", dirs_exist_ok=True)
    for script in (root / "etc/initramfs-tools").rglob("nonn-*"):
        script.chmod(0o755)
    (root / "etc/initramfs-tools/conf.d/nonn-edge").write_text("MODULES=list\nCOMPRESS=zstd\nFSTYPE=ext4\n")
    modules = root / "etc/initramfs-tools/modules"
    modules.write_text("\n".join(spec.kernel.initramfs_modules) + "\n")
    programs.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c", CHROOT_SCRIPT, "sh", root, *versions],
        log=folder / "initramfs.log",
        environment={"SOURCE_DATE_EPOCH": str(spec.source_date_epoch)},
    )
    firmware = folder / "firmware"
    shutil.copytree(root / "boot/firmware", firmware)
    (firmware / "cmdline.txt").write_text(command_line(spec))
    if spec.base == "raspios":
        (firmware / "config.txt").write_text(RASPIOS_CONFIG)
    shutil.rmtree(root)


def command_line(spec: ImageSpec) -> str:
    """Return the kernel's command line: a root that nothing writes to, and the serial console of the Pi."""
    consoles = " ".join(f"console={console}" for console in spec.kernel.consoles.split())
    root = f"root=LABEL={spec.partition('root').label} ro rootwait fsck.repair=yes"
    return f"{consoles} {root} net.ifnames=0 panic=10 systemd.show_status=1\n"


def kernel_versions(root: Path, expected: int) -> list[str]:
    """Return the versions of the kernels in a tree; UserError if there are more or fewer than the base has."""
    versions = sorted(path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
    if len(versions) != expected:
        found = ", ".join(versions) or "none"
        raise UserError(f"{root}/boot: expected {expected} kernel(s), found {found}", ExitCode.BAD_INPUT)
    return versions


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
