"""What a card looks like after a boot test: grown, wiped, whole."""

from pathlib import Path
from typing import Protocol

from edge_agent.console.exit_codes import UserError
from edge_agent.protocol.device_card import APPLIED, CARD_FILE
from firmware_images import programs
from firmware_images.disk_files import extract, fat_names, image_extents, read_fat_file
from firmware_images.first_boot.provision import ERROR_FILE
from firmware_images.partition_table import MIB, grown


class Report(Protocol):
    """Where findings go."""

    facts: dict[str, object]

    def note(self, line: str) -> None:
        """Show one line."""
        ...

    def fail(self, line: str) -> None:
        """Note what is not as it should be."""
        ...


def inspect_card(card: Path, secret: str, report: Report, scratch: Path) -> None:
    """Look at the card as a person with a PC would, and at its raw bytes for the secret."""
    extents = image_extents(card)
    _check_secret(card, secret, report)
    names = fat_names(card, extents[0])
    if ERROR_FILE in names:
        text = (read_fat_file(card, extents[0], ERROR_FILE) or b"").decode(errors="replace")
        report.fail(f"the device wrote {ERROR_FILE}: {' '.join(text.split())}")
    settings = read_fat_file(card, extents[0], CARD_FILE) or b""
    if APPLIED.encode() not in settings:
        report.fail(f"{CARD_FILE} on the card still has its secrets")
    if (missing := grown(extents, card.stat().st_size)) is not None:
        report.fail(f"the data partition did not grow: {extents[-1].count} sectors, there is room for {missing.count}")
    report.facts["data_mib"] = extents[-1].size_bytes // MIB
    data = scratch / "data.ext4"
    extract(card, extents[-1], data)
    try:
        # The power went off while it was mounted: the journal is replayed first, then everything is checked.
        programs.run(["sh", "-c", 'e2fsck -p "$1"; [ $? -lt 2 ]', "sh", data])
        programs.run(["e2fsck", "-f", "-n", data])
        report.note(f"card: settings wiped, data partition {report.facts['data_mib']} MiB and whole")
    except UserError as error:
        report.fail(f"data partition after the power cut: {error}")
    finally:
        data.unlink()


def _check_secret(card: Path, secret: str, report: Report) -> None:
    """Search the whole FAT partition for a line of the key."""
    line = secret.splitlines()[1].encode()
    boot = image_extents(card)[0]
    with card.open("rb") as file:
        file.seek(boot.start_bytes)
        if line in file.read(boot.size_bytes):
            report.fail("the device's key can still be read on the boot partition")
