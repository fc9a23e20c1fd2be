"""Tells systemd that the coordinator is up, and alive as long as it makes progress."""

from collections.abc import Callable

from coordinator.extension import CoordinatorExtension
from coordinator.frame_desk import FrameDesk
from edge_agent.console.service_notifier import ServiceNotifier

# Each round of the loop closes the frames whose time has come. One that is overdue by this much has not been closed:
# the loop turns without doing its work.
OVERDUE_S = 5.0
LONGEST_INTERVAL_S = 10.0


class Heartbeat(CoordinatorExtension):
    """Feeds the watchdog while no frame is overdue."""

    def __init__(self, desk: Callable[[], FrameDesk], notifier: ServiceNotifier) -> None:
        self._desk = desk
        self._notifier = notifier
        watchdog_s = notifier.watchdog_s
        self._interval_s = LONGEST_INTERVAL_S if watchdog_s is None else min(LONGEST_INTERVAL_S, watchdog_s / 3)
        self._next = 0.0
        self._is_ready = False

    def tick(self, now: float) -> None:
        """Once a round of the loop."""
        if now < self._next:
            return
        self._next = now + self._interval_s
        if not self._is_ready:
            self._is_ready = True
            self._notifier.ready("waiting for the broker")
        desk = self._desk()
        deadline = desk.next_deadline()
        if deadline is None or now - deadline < OVERDUE_S:
            self._notifier.alive(f"{desk.counts['frames_opened']} frames, {desk.open_frames} open")
