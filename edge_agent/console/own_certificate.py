"""From when until when a program's own certificate counts, and the wait for a clock that it counts at."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

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
    # 4 MB and 30 ms that programs without TLS save.
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        validity = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (OSError, ValueError):
        return None
    return validity


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
