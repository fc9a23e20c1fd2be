"""Run the tools that build and test images; what is missing is named with its Debian package."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError

DEBIAN_PACKAGE_OF = {
    "arch-test": "arch-test",
    "bmaptool": "bmap-tools",
    "debugfs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "fsck.vfat": "dosfstools",
    "gpg": "gnupg",
    "mcopy": "mtools",
    "mdir": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmdebstrap": "mmdebstrap",
    "mosquitto": "mosquitto",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-system-aarch64": "qemu-system-arm",
    "sfdisk": "fdisk",
    "systemctl": "systemd",
    "xz": "xz-utils",
    "zstd": "zstd",
}
# Root's tools are not on every user's PATH, and none of them needs root to work on a file.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
LAST_LINES = 4  # of a failed tool's output that go into our message


def require(programs: Sequence[str]) -> None:
    """UserError naming every missing program's package, before minutes are spent."""
    missing = sorted({DEBIAN_PACKAGE_OF[name] for name in programs if not is_installed(name)})
    if missing:
        raise UserError(f"missing programs; install them: apt-get install {' '.join(missing)}", ExitCode.UNAVAILABLE)


def is_installed(program: str) -> bool:
    """Whether `program` can be started."""
    return shutil.which(program, path=SEARCH_PATH) is not None


def tool_environment() -> dict[str, str]:
    """Return our environment, with root's tools on the path."""
    return {**os.environ, "PATH": SEARCH_PATH}


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a tool; return its output, or raise UserError with its name and last words."""
    words = [str(word) for word in command]
    environ = {**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(environment or {})}
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environ,
            check=False,
        )
    except FileNotFoundError as error:
        package = DEBIAN_PACKAGE_OF.get(words[0], words[0])
        raise UserError(f"{words[0]} is missing: apt-get install {package}", ExitCode.UNAVAILABLE) from error
    if log is not None:
        log.write_text(done.stdout, encoding="utf-8")
    if done.returncode != 0:
        last_words = " | ".join(done.stdout.strip().splitlines()[-LAST_LINES:])
        raise UserError(f"{words[0]} failed with {done.returncode}: {last_words}", ExitCode.FAILED)
    return done.stdout
