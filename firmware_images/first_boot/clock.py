"""What time it is at least: a Pi has no battery for its clock, and a certificate is not valid in 1970."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from firmware_images.first_boot.certificate_dates import validity
from firmware_images.first_boot.device_files import DEVICE_CERTIFICATE

SAVED_CLOCK = "var/lib/systemd/timesync/clock"
# systemd-timesyncd saves the time every 60 s. Later than that, no start is younger than the one before it, and the
# sessions of the protocol, which are start times, always grow.
SAVE_INTERVAL = timedelta(seconds=70)


def earliest_time(root: Path) -> datetime:
    """Return a time that has certainly passed: what was saved before the last stop, or when our certificate starts."""
    known = [datetime(1970, 1, 1, tzinfo=UTC)]
    # No certificate yet, or one that the check of the card refuses.
    with suppress(FileNotFoundError, ValueError):
        known.append(validity((root / DEVICE_CERTIFICATE).read_text())[0] + timedelta(seconds=1))
    # At the first start nothing was saved.
    with suppress(FileNotFoundError):
        saved_s = (root / SAVED_CLOCK).stat().st_mtime
        known.append(datetime.fromtimestamp(saved_s, UTC) + SAVE_INTERVAL)
    return max(known)
