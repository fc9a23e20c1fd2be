"""From when until when a program's own certificate counts, and the wait for a clock that it counts at."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.console.certificate_times import validity_of_pem
from edge_agent.console.service_notifier import ServiceNotifier
from edge_agent.protocol.broker import BrokerSettings

# systemd waits 60 s for a sign of life; a person at the console sees the clock move.
LOOK_S = 1.0
SAY_AGAIN_S = 60.0
_log = logging.getLogger("clock")


def certificate_validity(path: Path | None) -> tuple[datetime, datetime] | None:
    """NotBefore and notAfter of a PEM file's first certificate; None where there is none, or it can't be read."""
    if path is None:
        return None
    try:
        return validity_of_pem(path.read_bytes())
    except (OSError, ValueError):
        return None


def wait_for_clock(
    broker: BrokerSettings,
    stopped: Callable[[], bool],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], None] = time.sleep,
    notifier: ServiceNotifier | None = None,
) -> None:
    """Return when our certificate counts: a Pi has no battery clock, and in 1970 no TLS comes about."""
    validity = certificate_validity(broker.certificate_file)
    if validity is None:
        return
    start, end = validity
    notifier = notifier or ServiceNotifier()
    waited_s = 0.0
    while now() < start and not stopped():
        if waited_s % SAY_AGAIN_S == 0:
            _log.warning(
                "the clock shows %s, our certificate counts from %s: waiting for time synchronisation (timedatectl)",
                f"{now():%Y-%m-%d %H:%M}", f"{start:%Y-%m-%d}",
            )  # fmt: skip
        notifier.ready("waiting for the time")
        notifier.alive("waiting for the time")
        sleep(LOOK_S)
        waited_s += LOOK_S
    if waited_s:
        _log.info("the clock shows %s: going on", f"{now():%Y-%m-%d %H:%M}")
    if now() > end:
        _log.error(
            "our certificate %s ran out on %s; renew it: nonn-coordinator device renew NAME",
            broker.certificate_file, f"{end:%Y-%m-%d}",
        )  # fmt: skip
