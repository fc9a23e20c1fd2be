"""nonn-first-boot: runs at every start before the network; does nothing where nothing is new."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode
from firmware_images.first_boot.card_deployment import (
    CARD_FOLDER,
    INSTALLED,
    MANIFEST,
    DeploymentProblemError,
    install_card_deployment,
)
from firmware_images.first_boot.clock import earliest_time, note_start
from firmware_images.first_boot.device_files import AUTHORIZED_KEYS
from firmware_images.first_boot.growth import GrowthError, grow_data
from firmware_images.first_boot.provision import DeviceFolders, apply_card, utc, write_problems
from firmware_images.first_boot.trouble import lacks_deployment, plain_failure, room_problem, tell

CARD = Path("/boot/firmware")
ROOT = Path("/")
DATA = Path("/data")
DATA_PROBLEM = Path("/run/nonn-edge/data-problem")  # written by the initramfs
HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key")


def main() -> int:
    """Grow, check, apply, name; every trouble ends in a line on the console, on the card and at the site."""
    folders = DeviceFolders(CARD, ROOT)
    problems: list[str] = []
    try:
        raise_clock()  # whatever else fails: without it no certificate is valid
        _prepare(folders, problems)
        note_start(ROOT)
    except (OSError, subprocess.CalledProcessError) as error:
        problems.append(plain_failure(error))
    for problem in problems:
        say(problem)
    try:
        tell(folders, problems)
        if CARD.is_mount():
            write_problems(folders, writable_card, problems)
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"failed: {error}")
        return ExitCode.IO_ERROR
    return ExitCode.CONFIGURATION if problems else ExitCode.OK


def _prepare(folders: DeviceFolders, problems: list[str]) -> None:
    if DATA_PROBLEM.exists():
        # Settings taken now would be gone at the next start, with the keys that only the card still has.
        problems.append(DATA_PROBLEM.read_text().strip())
        return
    if not CARD.is_mount():
        problems.append("the boot partition cannot be read: the device keeps its settings; check the card in a PC")
        return
    try:
        if done := grow_data(DATA):
            say(done)
    except GrowthError as error:
        problems.append(f"the data partition keeps its size: {error}")
    if trouble := room_problem(DATA):
        problems.append(trouble)
    try:
        if deployment := install_card_deployment(folders.card, folders.root):
            say(f"deployment {deployment} taken from the card")
    except DeploymentProblemError as error:
        problems.append(str(error))
    has_deployment = (ROOT / INSTALLED / MANIFEST).is_file()
    applied = apply_card(folders, writable_card, utc(time.time()), has_deployment=has_deployment)
    problems += applied.problems
    say(applied.outcome.value)
    if not has_deployment and not problems and lacks_deployment(folders):
        problems.append(f"no deployment: copy its folder, manifest.json included, to this partition as {CARD_FOLDER}/")
    raise_clock()  # a new certificate may be younger than the clock
    socket.sethostname(Path("/etc/hostname").read_text().strip())
    if (ROOT / AUTHORIZED_KEYS).exists():
        make_host_key()


def raise_clock() -> None:
    """Set the clock to the earliest time that it can be, if it shows one before that."""
    earliest = earliest_time(ROOT)
    if time.time() < earliest.timestamp():
        time.clock_settime(time.CLOCK_REALTIME, earliest.timestamp())
        say(f"clock set to {earliest:%Y-%m-%d %H:%M} UTC, the earliest it can be")


def make_host_key() -> None:
    """Make this device's own ssh key, whole or not at all."""
    if HOST_KEY.exists():
        return
    fresh = HOST_KEY.with_name(".ssh_host_key.new")
    for leftover in (fresh, fresh.with_name(fresh.name + ".pub")):
        leftover.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(fresh)], check=True)
    subprocess.run(["sync", str(fresh), str(fresh) + ".pub"], check=True)
    fresh.with_name(fresh.name + ".pub").replace(HOST_KEY.with_suffix(".pub"))
    fresh.replace(HOST_KEY)


@contextmanager
def writable_card() -> Iterator[None]:
    """Let the FAT partition be written for as long as it takes, and no longer."""
    # -n: mount keeps no list of its own in /run, which a hardened service may not write.
    subprocess.run(["mount", "-n", "-o", "remount,rw,sync", str(CARD)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-n", "-o", "remount,ro", str(CARD)], check=False)


def say(line: str) -> None:
    """One line for the console and the journal."""
    print(f"nonn-first-boot: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
