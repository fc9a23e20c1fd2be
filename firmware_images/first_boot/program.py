"""nonn-first-boot: runs at every start before the network; does nothing where nothing is new."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode
from firmware_images.first_boot.card_deployment import DeploymentProblemError, install_card_deployment
from firmware_images.first_boot.clock import earliest_time
from firmware_images.first_boot.device_files import AUTHORIZED_KEYS
from firmware_images.first_boot.growth import GrowthError, grow_data
from firmware_images.first_boot.provision import DeviceFolders, Outcome, apply_card, refuse, utc

CARD = Path("/boot/firmware")
ROOT = Path("/")
DATA = Path("/data")
DATA_PROBLEM = Path("/run/nonn-edge/data-problem")  # written by the initramfs
HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key")


def main() -> int:
    """Grow, check, apply, name; every trouble ends in a line on the console and in a file on the card."""
    folders = DeviceFolders(CARD, ROOT)
    if not CARD.is_mount():
        say(f"{CARD} is not mounted: the boot partition cannot be read; the device keeps its settings")
        return ExitCode.IO_ERROR
    try:
        return _prepare(folders)
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"failed: {error}")
        refuse(folders, writable_card, [f"the card cannot be written: {error}; it may be full or worn out"])
        return ExitCode.IO_ERROR


def _prepare(folders: DeviceFolders) -> int:
    if DATA_PROBLEM.exists():
        problem = DATA_PROBLEM.read_text().strip()
        say(problem)
        refuse(folders, writable_card, [problem])
        return ExitCode.IO_ERROR
    try:
        if done := grow_data(DATA):
            say(done)
    except GrowthError as error:
        say(f"the data partition keeps its size: {error}")
    raise_clock()
    outcome = apply_card(folders, writable_card, utc(time.time()))
    say(outcome.value)
    try:
        if deployment := install_card_deployment(folders.card, folders.root):
            say(f"deployment {deployment} taken from the card")
    except DeploymentProblemError as error:
        say(str(error))
        outcome = refuse(folders, writable_card, [str(error)])
    raise_clock()  # a new certificate may be younger than the clock
    socket.sethostname(Path("/etc/hostname").read_text().strip())
    if (ROOT / AUTHORIZED_KEYS).exists():
        make_host_key()
    return ExitCode.CONFIGURATION if outcome is Outcome.REFUSED else ExitCode.OK


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
    subprocess.run(["mount", "-o", "remount,rw,sync", str(CARD)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,ro", str(CARD)], check=False)


def say(line: str) -> None:
    """One line for the console and the journal."""
    print(f"nonn-first-boot: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
