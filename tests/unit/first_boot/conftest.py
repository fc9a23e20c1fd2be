"""A site's authority, and a device's folders: card and root."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.provisioning.authority import Authority
from firmware_images.first_boot.provision import DeviceFolders

from .cards import NOW


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("home", NOW)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: every write here is followed by two fsyncs."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def folders(memory: Path) -> DeviceFolders:
    card, root = memory / "card", memory / "root"
    card.mkdir()
    (root / "etc").mkdir(parents=True)
    zones = root / "usr/share/zoneinfo"
    (zones / "Europe").mkdir(parents=True)
    (zones / "iso3166.tab").write_text("# comment\nDE\tGermany\nFR\tFrance\n")
    for zone in ("UTC", "Europe/Berlin"):
        (zones / zone).write_bytes(b"TZif")
    return DeviceFolders(card, root, owners=False)
