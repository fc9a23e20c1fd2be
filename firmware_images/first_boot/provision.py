"""Applies a card to a root folder, once, so that a power cut at any moment leaves the old or the new state."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from edge_agent.console.atomic_file import sync_folder, write_atomically
from edge_agent.protocol.device_card import CARD_FILE
from firmware_images.first_boot.card_reader import CardProblemsError
from firmware_images.first_boot.card_settings import CardSettings, Places, parse_card
from firmware_images.first_boot.card_template import wiped_card
from firmware_images.first_boot.certificate_dates import validity
from firmware_images.first_boot.device_files import (
    OPTIONAL_PATHS,
    MissingSecretError,
    Secrets,
    device_files,
    resolve_secrets,
)

ERROR_FILE = "nonn-edge-error.txt"
STATE_FOLDER = "var/lib/nonn-edge/first-boot"
COUNTRY_TABLE = "usr/share/zoneinfo/iso3166.tab"
ZONES = "usr/share/zoneinfo"
WritableCard = Callable[[], AbstractContextManager[None]]


class Outcome(Enum):
    """What a run did."""

    APPLIED = "settings applied"
    UNCHANGED = "settings were applied before"
    REFUSED = "settings refused"


@dataclass(frozen=True)
class Applied:
    """What came of a card, and everything that a person has to mend."""

    outcome: Outcome
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stamp:
    """What was applied: the card as it was, and as it is without secrets."""

    source_sha256: str
    wiped_sha256: str
    wiped: bool
    has_deployment: bool = True


@dataclass(frozen=True)
class DeviceFolders:
    """Where card and system are mounted; a test gives temporary folders."""

    card: Path
    root: Path
    owners: bool = True  # set groups: needs root and the image's accounts

    @property
    def state(self) -> Path:
        """Where first boot remembers, readable by root alone."""
        return self.root / STATE_FOLDER


def apply_card(
    folders: DeviceFolders, writable_card: WritableCard, now: datetime, *, has_deployment: bool = True
) -> Applied:
    """Apply the card's settings if they, or what they meet on the device, are new; else nothing changes."""
    folders.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    stamp = read_stamp(folders)
    try:
        content = (folders.card / CARD_FILE).read_bytes()
    except FileNotFoundError:
        if stamp is not None:
            return Applied(Outcome.UNCHANGED)  # deleted on purpose: the device keeps what it has
        return Applied(Outcome.REFUSED, (f"{CARD_FILE} is missing; copy it to this partition",))
    if stamp is not None and not stamp.wiped:
        _wipe(folders, writable_card, stamp)  # a power cut came between applying and wiping
        return Applied(Outcome.APPLIED)
    if stamp is not None and _sha256(content) == stamp.wiped_sha256 and stamp.has_deployment == has_deployment:
        return Applied(Outcome.UNCHANGED)
    try:
        settings = parse_card(content, known_places(folders.root))
        secrets = resolve_secrets(settings, read_secrets(folders))
        check_certificate(settings, now)
    except CardProblemsError as error:
        return Applied(Outcome.REFUSED, tuple(error.problems))
    except MissingSecretError as error:
        return Applied(Outcome.REFUSED, (str(error),))
    _write_device(folders, settings, secrets, has_deployment)
    wiped = wiped_card(settings, len(content))
    write_atomically(folders.state / "wiped-card.toml", wiped, 0o600)
    stamp = Stamp(_sha256(content), _sha256(wiped), wiped=False, has_deployment=has_deployment)
    _write_json(folders.state / "stamp.json", asdict(stamp))
    _wipe(folders, writable_card, stamp)
    return Applied(Outcome.APPLIED)


def write_problems(folders: DeviceFolders, writable_card: WritableCard, problems: Sequence[str]) -> None:
    """Leave the problems where a person with a PC finds them; without any, take away what was written before."""
    target = folders.card / ERROR_FILE
    if not problems:
        if target.exists():
            with writable_card():
                target.unlink()
        return
    lines = ["NoNN Edge could not use all of this card. What is wrong:", "", *[f"- {problem}" for problem in problems]]
    lines += ["", f"Correct {CARD_FILE} (or what is named above), then start the device again.", ""]
    content = "\r\n".join(lines).encode()  # Windows' Notepad too
    if not target.exists() or target.read_bytes() != content:
        with writable_card():
            target.write_bytes(content)
            _sync(target)


def check_certificate(settings: CardSettings, now: datetime) -> None:
    """CardProblemsError if the device's certificate can't be read or is over; one from the future sets the clock."""
    if not settings.broker.tls:
        return
    try:
        _, until = validity(settings.broker.cert)
    except ValueError as error:
        raise CardProblemsError([f"[broker] cert: no readable certificate: {error}"]) from error
    if until < now:
        raise CardProblemsError(
            [f"[broker] cert: ran out on {until:%Y-%m-%d}; renew it (nonn-coordinator device renew {settings.name})"]
        )


def known_places(root: Path) -> Places:
    """Return the countries and time zones that the system's tzdata knows."""
    table = (root / COUNTRY_TABLE).read_text(encoding="utf-8")
    countries = frozenset(line.split("\t")[0] for line in table.splitlines() if not line.startswith("#"))

    def is_zone(zone: str) -> bool:
        path = Path(zone)
        return not path.is_absolute() and ".." not in path.parts and (root / ZONES / path).is_file()

    return Places(countries.__contains__, is_zone)


def read_stamp(folders: DeviceFolders) -> Stamp | None:
    """Return what was applied last, or None; a worn card may have lost it, then the settings are applied again."""
    try:
        return Stamp(**json.loads((folders.state / "stamp.json").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def read_secrets(folders: DeviceFolders) -> Secrets:
    """Return the secrets that the device took from earlier cards; none if a worn card has lost them."""
    try:
        return Secrets(**json.loads((folders.state / "secrets.json").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return Secrets()


def _write_device(folders: DeviceFolders, settings: CardSettings, secrets: Secrets, has_deployment: bool) -> None:
    _write_json(folders.state / "secrets.json", asdict(secrets))
    wanted = device_files(settings, secrets, has_deployment=has_deployment)
    for file in wanted:
        target = folders.root / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, file.content.encode(), file.mode)
        if folders.owners:
            shutil.chown(target, file.owner, file.group)
    for path in sorted(set(OPTIONAL_PATHS) - {file.path for file in wanted}):
        (folders.root / path).unlink(missing_ok=True)
    _link_zone(folders.root / "etc/localtime", settings.zone)


def _link_zone(link: Path, zone: str) -> None:
    fresh = link.with_name(".localtime.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(f"/usr/share/zoneinfo/{zone}")
    fresh.replace(link)
    sync_folder(link.parent)


def _wipe(folders: DeviceFolders, writable_card: WritableCard, stamp: Stamp) -> None:
    """Overwrite the card's file where it lies: a new file would leave the old sectors, and the secrets in them."""
    wiped = (folders.state / "wiped-card.toml").read_bytes()
    card = folders.card / CARD_FILE
    with writable_card():
        with card.open("r+b") as file:
            file.write(wiped)
            file.truncate()
        _sync(card)
    _write_json(folders.state / "stamp.json", {**asdict(stamp), "wiped": True})


def _write_json(path: Path, value: dict[str, object]) -> None:
    write_atomically(path, json.dumps(value).encode(), 0o600)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def utc(seconds: float) -> datetime:
    """Return a time stamp as a time with a zone."""
    return datetime.fromtimestamp(seconds, UTC)
