"""Energy since the agent's start: of the board where a sensor measures it, else estimated from the CPU time spent."""

import time
from collections.abc import Callable

from edge_agent.energy import board_name, core_watts
from edge_agent.protocol.status import PowerSource
from edge_agent.telemetry import DeviceSensors

SAMPLE_S = 1.0  # a student's bursts are shorter, but the sensors' own means are not


class EnergyAccount:
    """Ticks along with the agent's loop. Estimates count what the agent adds to the idle board."""

    def __init__(
        self,
        measured_w: Callable[[], float | None] | None = None,
        cpu_s: Callable[[], float] = time.process_time,
        board: str | None = None,
    ) -> None:
        self._measured_w = measured_w or DeviceSensors().power_w
        self._cpu_s = cpu_s
        self._core_w = core_watts(board_name() if board is None else board)
        self._sampled: tuple[float, float] | None = None
        self._next_sample_s = 0.0
        self.power_w: float | None = None
        self.source: PowerSource = "measured"
        self.joules: dict[PowerSource, float] = {}

    def tick(self, now: float) -> None:
        """Sample when a second is over."""
        if now >= self._next_sample_s:
            self._next_sample_s = now + SAMPLE_S
            self.sample(now)

    def sample(self, now: float) -> None:
        """Add what was spent since the last sample."""
        before, self._sampled = self._sampled, (now, self._cpu_s())
        if before is None or now <= before[0]:
            return
        elapsed_s = now - before[0]
        measured = self._measured_w()
        if measured is not None:
            self.source, self.power_w = "measured", measured
        elif self._core_w is not None:
            self.source, self.power_w = "estimated", self._core_w * (self._sampled[1] - before[1]) / elapsed_s
        else:
            self.power_w = None
            return
        self.joules[self.source] = self.joules.get(self.source, 0.0) + self.power_w * elapsed_s
