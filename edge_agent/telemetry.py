"""How this device fares: load, memory, temperature, throttling, power, latency."""

from bisect import bisect_left
from collections import deque
from pathlib import Path

import numpy as np
import psutil

from edge_agent.protocol.status import HISTOGRAM_MS

THROTTLED_FILE = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
# Bits of the Pi firmware's word: under-voltage, frequency capped, throttled, soft temperature limit, all "now".
THROTTLED_NOW = 0b1111
LATENCY_WINDOW = 512  # enough for a p95 that ten slow frames move


class LatencyWindow:
    """The last interpreter times."""

    def __init__(self) -> None:
        self._recent_ms: deque[float] = deque(maxlen=LATENCY_WINDOW)
        self.total_ms = 0.0  # of all runs
        self._histogram = [0] * (len(HISTOGRAM_MS) + 1)

    @property
    def histogram(self) -> tuple[int, ...]:
        """Runs since the start by HISTOGRAM_MS."""
        return tuple(self._histogram)

    def add(self, milliseconds: float) -> None:
        """Remember one interpreter run."""
        self._recent_ms.append(milliseconds)
        self.total_ms += milliseconds
        self._histogram[bisect_left(HISTOGRAM_MS, milliseconds)] += 1

    def percentile(self, percent: float) -> float | None:
        """Milliseconds, or None before the first run."""
        return round(float(np.percentile(self._recent_ms, percent)), 3) if self._recent_ms else None


class DeviceSensors:
    """Readings of the machine; None where it has no such sensor."""

    def __init__(self, hwmon: Path = Path("/sys/class/hwmon"), throttled: Path = THROTTLED_FILE) -> None:
        self._hwmon = hwmon
        self._throttled = throttled
        self._own_process = psutil.Process()
        self._own_process.cpu_percent()

    def cpu_percent(self) -> float:
        """CPU time of this process since the last call, 100 = one core."""
        return self._own_process.cpu_percent()

    def memory_rss_bytes(self) -> int:
        """Resident memory of this process."""
        return int(self._own_process.memory_info().rss)

    def memory_available_bytes(self) -> int:
        """Memory that a new program could get."""
        return int(psutil.virtual_memory().available)

    def temperature_c(self) -> float | None:
        """The hottest sensor, degrees Celsius."""
        readings = [_number(path, 1000) for path in self._hwmon.glob("hwmon*/temp*_input")]
        known = [reading for reading in readings if reading is not None]
        return max(known) if known else None

    def power_w(self) -> float | None:
        """Sum of the power sensors (INA219 and the like), watts."""
        readings = [_number(path, 1_000_000) for path in self._hwmon.glob("hwmon*/power*_input")]
        known = [reading for reading in readings if reading is not None]
        return sum(known) if known else None

    def throttled(self) -> bool | None:
        """True while the Pi's firmware slows the CPU or sees under-voltage."""
        try:
            word = int(self._throttled.read_text().strip(), 16)
        except (OSError, ValueError):
            return self._under_voltage()
        return bool(word & THROTTLED_NOW)

    def _under_voltage(self) -> bool | None:
        """The kernel's own alarm (rpi_volt), where the firmware's word has no file."""
        alarms = [_number(path, 1) for path in self._hwmon.glob("hwmon*/in0_lcrit_alarm")]
        known = [alarm for alarm in alarms if alarm is not None]
        return any(known) if known else None


def _number(path: Path, divisor: float) -> float | None:
    try:
        return int(path.read_text()) / divisor
    except (OSError, ValueError):
        return None
