"""The fast stage: overlay, units, Python packages and defaults laid over the packages; no arm code runs."""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images import programs
from firmware_images.boot_files import copy_tree, restore_diverted
from firmware_images.first_boot.card_template import card_template
from firmware_images.spec import ImageSpec
from firmware_images.wheels import LAUNCHERS, REPOSITORY, console_scripts, launcher, unpack_wheel

OVERLAY = Path(__file__).parent / "overlay"
UNITS = REPOSITORY / "systemd"
PROGRAM_FOLDER = "usr/lib/nonn-edge"
SITE = f"/{PROGRAM_FOLDER}/site"
# Programs that only units start.
INTERNAL_PROGRAMS = {
    "first-boot": "firmware_images.first_boot.program:main",
    "report-problems": "firmware_images.first_boot.problem_report:main",
    "report-network": "firmware_images.first_boot.network_report:main",
}


def build_content(
    spec: ImageSpec,
    packages_root: Path,
    firmware: Path,
    wheels: Iterable[Path],
    our_wheel: Path,
    tvm_runtime: Path | None,
    folder: Path,
) -> None:
    """Fill `folder` with root, firmware and data: what the three partitions will hold."""
    root = folder / "root"
    copy_tree(packages_root, root)
    restore_diverted(root)
    shutil.copytree(firmware, folder / "firmware")
    # The boot chain reads kernel and initramfs from the FAT partition; copies on root would only take space.
    for path in (root / "boot").iterdir():
        if path.is_file():
            path.unlink()
    (root / "boot/firmware").mkdir(exist_ok=True)
    (root / "data").mkdir()
    (root / "etc/fstab").write_text(file_systems(spec))
    copy_overlay(OVERLAY, root)
    install_units(root)
    site = root / SITE.lstrip("/")
    for wheel in [*wheels, our_wheel]:
        unpack_wheel(wheel, site)
    for path in sorted(tvm_runtime.iterdir()) if tvm_runtime else ():
        place(path, root / PROGRAM_FOLDER / path.name)
    install_launchers(root, our_wheel)
    compile_bytecode(spec, root)
    make_anonymous(root)
    create_accounts(root)
    switch_services(spec, root)
    (folder / "firmware/nonn-edge.toml").write_text(card_template(spec.default_role))
    if spec.deployment is not None:
        shutil.copytree(REPOSITORY / spec.deployment, root / "var/lib/nonn-edge/deployment")
    own_by_root(root, [site, root / PROGRAM_FOLDER])
    (folder / "data/overlay").mkdir(parents=True)
    (folder / "data/lost+found").mkdir(mode=0o700)
    for tree in ("root", "firmware", "data"):
        clamp_times(folder / tree, spec.source_date_epoch)


def file_systems(spec: ImageSpec) -> str:
    """Return /etc/fstab: nothing is written but on data, which the initramfs has mounted already."""
    boot, root = spec.partition("boot").label, spec.partition("root").label
    return (
        f"LABEL={root} / ext4 ro,noatime 0 0\n"
        # 5 minutes: without its settings a fresh device is nothing, and an emulated one takes 90 s and more to find it.
        f"LABEL={boot} /boot/firmware vfat ro,umask=0077,nofail,x-systemd.device-timeout=300s 0 0\n"
        "tmpfs /tmp tmpfs nosuid,nodev,size=64m 0 0\n"
    )


def copy_overlay(overlay: Path, root: Path) -> None:
    """Copy the overlay's files; modes are 0644 or 0755 whatever the checkout's umask was."""
    for source in sorted(overlay.rglob("*")):
        if source.is_dir() or "__pycache__" in source.parts:
            continue
        target = root / source.relative_to(overlay)
        place(source, target, executable=bool(source.stat().st_mode & 0o100))


def place(source: Path, target: Path, *, executable: bool = False) -> None:
    """Copy one file, replacing what is there (a link too), with a mode of our choice."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if executable else 0o644)


def install_units(root: Path, units: Path = UNITS) -> None:
    """Install systemd/: the same files that the Debian package installs."""
    for path in sorted(units.iterdir()):
        if path.suffix == ".service":
            place(path, root / "usr/lib/systemd/system" / path.name)
    place(units / "sysusers.conf", root / "usr/lib/sysusers.d/nonn-edge.conf")
    place(units / "tmpfiles.conf", root / "usr/lib/tmpfiles.d/nonn-edge.conf")
    place(units / "back-off", root / PROGRAM_FOLDER / "back-off", executable=True)


def install_launchers(root: Path, our_wheel: Path) -> None:
    """Write the start scripts of our programs."""
    scripts = console_scripts(our_wheel)
    for name in LAUNCHERS:
        if name not in scripts:
            raise UserError(f"{our_wheel.name} has no console script {name}", ExitCode.BAD_INPUT)
        write_program(root / "usr/bin" / name, launcher(scripts[name], SITE))
    for name, entry_point in INTERNAL_PROGRAMS.items():
        write_program(root / PROGRAM_FOLDER / name, launcher(entry_point, SITE))


def write_program(path: Path, text: str) -> None:
    """Write an executable text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def compile_bytecode(spec: ImageSpec, root: Path) -> None:
    """Compile Python's and our modules: the root is read-only, so no Pi could do it later.

    Bytecode depends on the minor version alone; unchecked hashes keep time stamps out of it.
    """
    python = shutil.which(f"python{spec.wheels.python}")
    if f"{sys.version_info.major}.{sys.version_info.minor}" == spec.wheels.python:
        python = sys.executable
    if python is None:
        raise UserError(f"python{spec.wheels.python} is needed to compile the image's modules", ExitCode.UNAVAILABLE)
    folders = [SITE, f"/usr/lib/python{spec.wheels.python}", "/usr/lib/python3"]
    # -r 20: compileall's own recursion; exit 1 says that a file (a test sample of some package) is no Python.
    command = [python, "-m", "compileall", "-q", "-q", "-f", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(root), *[str(root / folder.lstrip("/")) for folder in folders]]
    programs.run(["sh", "-c", '"$@" || [ $? = 1 ]', "sh", *command], environment={"PYTHONHASHSEED": "0"})


def make_anonymous(root: Path) -> None:
    """Remove what must differ between devices; the first boot makes it."""
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    # Empty, not absent: systemd then makes an id without treating the start as an interactive first boot.
    (root / "etc/machine-id").write_text("")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    (root / "etc/hostname").write_text("nonn-edge\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 nonn-edge\n::1 localhost\n")
    (root / "var/lib/systemd/random-seed").unlink(missing_ok=True)
    resolv = root / "etc/resolv.conf"
    resolv.unlink(missing_ok=True)
    resolv.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    # systemd takes this file's time as the earliest that the clock may show: never 1970.
    (root / "usr/lib/clock-epoch").write_text("")


def create_accounts(root: Path) -> None:
    """Create the users of sysusers.d now, since /etc/passwd is on the read-only root."""
    programs.run(["systemd-sysusers", f"--root={root}", "nonn-edge.conf"])


def switch_services(spec: ImageSpec, root: Path) -> None:
    """Enable and mask units; conditions on files that the first boot writes decide which of them start."""
    units = [name if "." in name else f"{name}.service" for name in spec.services.enable]
    programs.run(["systemctl", f"--root={root}", "--quiet", "enable", *units])
    programs.run(["systemctl", f"--root={root}", "--quiet", "mask", *spec.services.mask])


def own_by_root(root: Path, folders: Iterable[Path]) -> None:
    """Give our own files to root, readable by all."""
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, 0, 0, follow_symlinks=False)
            if path.is_dir():
                path.chmod(0o755)
    del root


def clamp_times(tree: Path, epoch: int) -> None:
    """Set every time that is later than `epoch` back to it."""
    for path in [tree, *tree.rglob("*")]:
        times = path.lstat()
        if times.st_mtime != min(int(times.st_mtime), epoch):
            os.utime(path, (epoch, min(int(times.st_mtime), epoch)), follow_symlinks=False)
