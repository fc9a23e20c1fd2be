"""nonn-image boot-test --trouble: what is wrong with a card stands on it, in words, after a start in QEMU."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode
from firmware_images import programs
from firmware_images.boot_coordinator import BootSite
from firmware_images.boot_run import BootReport
from firmware_images.boot_site import write_card
from firmware_images.disk_files import extract, image_extents, read_fat_file
from firmware_images.first_boot.provision import ERROR_FILE
from firmware_images.first_boot.trouble import LEAST_FREE_BYTES
from firmware_images.partition_table import MIB
from firmware_images.qemu_machine import RunningMachine, qemu_command, take_kernel

LOOK_PERIOD_S = 2.0
CONSOLE_S = 20.0


@dataclass(frozen=True)
class Trouble:
    """How a good card becomes a bad one, and what the device has to say of it."""

    words: str
    spoil: Callable[[Path], None]
    network: bool = True


def trouble_test(image: Path, machine: str, name: str, work: Path, timeout_s: float, niceness: int) -> int:
    """Start a spoilt card until its error file says why; exit code 1 if it never does."""
    programs.require(["qemu-system-aarch64", "mcopy", "e2fsck"])
    trouble = TROUBLES[name]
    work = work.resolve() / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    report = BootReport(machine)
    card, serial = work / "card.img", work / "serial.log"
    write_card(image, card, BootSite(work, work).card("edge-trouble", [0]))
    kernel = take_kernel(card, work)
    boot = image_extents(card)[0]
    trouble.spoil(card)
    command = qemu_command(machine, kernel, card, serial, niceness, "", {} if trouble.network else None)
    with RunningMachine(command, work / "qemu.log") as running:

        def within(seconds: float, said: Callable[[], str]) -> bool:
            while trouble.words not in said() and time.monotonic() - running.started_s < seconds and running.running:
                time.sleep(LOOK_PERIOD_S)
            return trouble.words in said()

        def card_says() -> str:
            return (read_fat_file(card, boot, ERROR_FILE) or b"").decode(errors="replace")

        if within(timeout_s, card_says):
            seconds = time.monotonic() - running.started_s
            report.note(f"{name}: after {seconds:.0f} s ({running.cpu_seconds():.0f} CPU s) {ERROR_FILE} says:")
            report.note(" | ".join(line for line in card_says().splitlines() if line.startswith("- ")))
        else:
            report.fail(f"{ERROR_FILE} does not say {trouble.words!r} after {timeout_s:g} s; see {serial}")
        # The console has it from the journal, a moment later.
        if not within(time.monotonic() - running.started_s + CONSOLE_S, lambda: serial.read_text(errors="replace")):
            report.fail(f"the console does not say {trouble.words!r}; see {serial}")
    report.note(f"{name}: {'failed' if report.failures else 'passed'}")
    return ExitCode.FAILED if report.failures else ExitCode.OK


def _cut_off(card: Path) -> None:
    """Leave no room for the data partition, as a card that is smaller than the image does."""
    with card.open("r+b") as file:
        file.truncate(image_extents(card)[2].start_bytes)


def _fill(card: Path) -> None:
    """Fill the data partition but for less than the device wants."""
    extent = image_extents(card)[2]
    data, filler = card.with_suffix(".data"), card.with_suffix(".filler")
    extract(card, extent, data)
    text = programs.run(["dumpe2fs", "-h", data])
    numbers = {line.split(":")[0]: line.split(":")[1].strip() for line in text.splitlines() if ":" in line}
    free_bytes = int(numbers["Free blocks"]) * int(numbers["Block size"])
    with filler.open("wb") as file:
        for _ in range((free_bytes - LEAST_FREE_BYTES // 2) // MIB):
            file.write(b"full" * (MIB // 4))
    programs.run(["debugfs", "-w", "-R", f"write {filler} filler", data])
    with card.open("r+b") as file, data.open("rb") as source:
        file.seek(extent.start_bytes)
        shutil.copyfileobj(source, file)


def _leave(card: Path) -> None:
    """Nothing is wrong with the card itself."""


TROUBLES = {
    "small-card": Trouble("the card is too small or the image was cut off", _cut_off),
    "full-card": Trouble("the data partition is full", _fill),
    "no-network": Trouble("no network: there is no cable", _leave, network=False),
}
