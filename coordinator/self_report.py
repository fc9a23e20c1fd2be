"""The coordinator's own telemetry."""

from collections.abc import Callable

import psutil

from coordinator.extension import CoordinatorExtension
from coordinator.frame_desk import FrameDesk
from edge_agent.protocol.fleet_messages import CoordinatorTelemetry
from edge_agent.protocol.link import Outgoing

MAX_SOURCES = 64  # deadlines told; sources are named by their senders


class SelfReport(CoordinatorExtension):
    """Publishes `coordinator/<id>/telemetry` every few seconds."""

    def __init__(
        self, topic: str, session: int, desk: Callable[[], FrameDesk], publish: Callable[[Outgoing], bool],
        interval_s: float, now: float,
    ) -> None:  # fmt: skip
        self._topic = topic
        self._session = session
        self._desk = desk
        self._publish = publish
        self._interval_s = interval_s
        self._started = now
        self._next = now + interval_s
        self._own_process = psutil.Process()
        self._own_process.cpu_percent()

    def tick(self, now: float) -> None:
        """Publish when it is time."""
        if now < self._next:
            return
        self._next = now + self._interval_s
        desk = self._desk()
        telemetry = CoordinatorTelemetry(
            session=self._session,
            uptime_s=round(now - self._started, 1),
            cpu_percent=self._own_process.cpu_percent(),
            memory_rss_bytes=int(self._own_process.memory_info().rss),
            open_frames=desk.open_frames,
            counts=dict(desk.counts),
            deadline_ms=dict(list(desk.deadlines_ms().items())[:MAX_SOURCES]),
        )
        self._publish(Outgoing(self._topic, telemetry.encode()))
