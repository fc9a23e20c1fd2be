"""What can be wrong with a device besides its card's text, in plain words, and how the site hears of it."""

import errno
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from edge_agent.console.atomic_file import write_atomically
from edge_agent.protocol.device_card import APPLIED, CARD_FILE
from firmware_images.first_boot.card_reader import CardProblemsError
from firmware_images.first_boot.card_settings import (
    CardSettings,
    name_and_broker,
    parse_card,
)
from firmware_images.first_boot.device_files import AGENT_CONFIG, PROBLEMS, PROGRAM_GROUP
from firmware_images.first_boot.provision import DeviceFolders, known_places, read_secrets

REPORT = "run/nonn-edge/report"
# An update of a small student, its settings and a clean journal; below it every program starts to fail.
LEAST_FREE_BYTES = 8 * 1024 * 1024


def plain_failure(error: Exception) -> str:
    """Say what a failed write means for a person with a card in his hand."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC:
        return "the card is full: delete what you copied onto it, or write the image to a larger card"
    if number == errno.EROFS:
        return "the card cannot be written: is its lock switch on, or is it worn out? Try another card"
    return f"the card cannot be written: {error}; it may be worn out: try another card"


def room_problem(data: Path) -> str:
    """Return what to say if the data partition is nearly full, or nothing."""
    free = shutil.disk_usage(data).free
    if free >= LEAST_FREE_BYTES:
        return ""
    return (
        f"the data partition is full ({free >> 20} MiB free, expected {LEAST_FREE_BYTES >> 20}): "
        "write the image to a larger card"
    )


def lacks_deployment(folders: DeviceFolders) -> bool:
    """Whether the applied settings need a deployment that nobody will send: no updates, or a coordinator."""
    settings = applied_settings(folders)
    return settings is not None and deployment_is_needed(settings)


def deployment_is_needed(settings: CardSettings) -> bool:
    """Whether nobody will send the device's first deployment."""
    return settings.runs_coordinator or (settings.students != () and not settings.trusted_keys)


def applied_settings(folders: DeviceFolders) -> CardSettings | None:
    """Return the settings that the device runs with, without secrets; None before the first card."""
    try:
        return parse_card((folders.state / "wiped-card.toml").read_bytes(), known_places(folders.root))
    except (FileNotFoundError, CardProblemsError):
        return None


def tell(folders: DeviceFolders, problems: Sequence[str]) -> None:
    """Leave the problems where the agent reads them; without an agent, leave what a small reporter needs."""
    shutil.rmtree(folders.root / REPORT, ignore_errors=True)
    listed = folders.root / PROBLEMS.lstrip("/")
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.unlink(missing_ok=True)
    if not problems:
        return
    write_atomically(listed, "".join(f"{problem}\n" for problem in problems).encode(), 0o644)
    if not (folders.root / AGENT_CONFIG).exists():
        _prepare_report(folders)


def _prepare_report(folders: DeviceFolders) -> None:
    """Take name and broker from a card that is wrong elsewhere, or from the applied one; in memory, for this start."""
    found = None
    for path in (folders.card / CARD_FILE, folders.state / "wiped-card.toml"):
        if found is None and path.is_file():
            found = name_and_broker(path.read_bytes())
    if found is None:
        return
    name, site, broker = found
    key = read_secrets(folders).device_key if broker.key == APPLIED else broker.key
    if broker.tls and not key:
        return
    folder = folders.root / REPORT
    folder.mkdir(mode=0o755)
    connection: dict[str, object] = {"host": broker.host, "port": broker.port, "insecure": broker.insecure}
    if broker.tls:
        for setting, file, text in (
            ("ca_file", "ca.pem", broker.ca),
            ("certificate_file", "device.pem", broker.cert),
            ("key_file", "device.key", key),
        ):
            write_atomically(folder / file, text.encode(), 0o640)
            if folders.owners:
                shutil.chown(folder / file, "root", PROGRAM_GROUP)
            connection[setting] = f"/{REPORT}/{file}"
    # Last: the reporter starts where this file is.
    report = {"device": name, "site": site, "broker": connection}
    write_atomically(folder / "report.json", json.dumps(report).encode(), 0o644)
