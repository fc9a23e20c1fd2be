"""What time it is at least: a Pi has no battery for its clock, and a certificate is not valid in 1970."""

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from firmware_images.first_boot.certificate_dates import validity
from firmware_images.first_boot.device_files import DEVICE_CERTIFICATE

SAVED_CLOCK = "var/lib/systemd/timesync/clock"
STARTED = "var/lib/nonn-edge/first-boot/started"  # its time is when the device was started last
# systemd-timesyncd saves the time every 60 s. Later than that, no start is younger than the one before it, and the
# sessions of the protocol, which are start times, always grow.
SAVE_INTERVAL = timedelta(seconds=70)
# It begins later than our note of the start, on a slow card by many seconds, and saves for the first time a minute on.
FIRST_SAVE = timedelta(seconds=120)


def earliest_time(root: Path) -> datetime:
    """Return a time that has certainly passed: what was noted before the last stop, or when our certificate starts."""
    known = [datetime(1970, 1, 1, tzinfo=UTC)]
    # No certificate yet, or one that the check of the card refuses.
    with suppress(FileNotFoundError, ValueError):
        known.append(validity((root / DEVICE_CERTIFICATE).read_text())[0] + timedelta(seconds=1))
    # At the first start nothing was noted.
    for path, interval in ((SAVED_CLOCK, SAVE_INTERVAL), (STARTED, FIRST_SAVE)):
        with suppress(FileNotFoundError):
            noted_s = (root / path).stat().st_mtime
            known.append(datetime.fromtimestamp(noted_s, UTC) + interval)
    return max(known)


def note_start(root: Path) -> None:
    """Note what the clock shows now, so that it is still known after a power cut in the next moment."""
    path = root / STARTED
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
