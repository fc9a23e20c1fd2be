"""Energy of a stretch of work: by the machine's own meters where it has any, else estimated and named so."""

import threading
import time
from pathlib import Path
from typing import Protocol

HWMON = Path("/sys/class/hwmon")
POWERCAP = Path("/sys/class/powercap")
DEVICE_TREE_MODEL = Path("/proc/device-tree/model")
SAMPLE_S = 0.02  # INA2xx chips convert every 2-140 ms

# Watts that one busy core adds to the idle board: (busy - idle) / 4 of pidramble.com (3B+, 4), of reviews (5)
# and of andrejacobs.org and cnx-software.com (Zero 2 W). Longest names first: the first match counts.
CORE_WATTS = {
    "Raspberry Pi Zero 2": 0.5,
    "Raspberry Pi 3": 0.8,
    "Raspberry Pi 4": 0.93,
    "Raspberry Pi 5": 1.4,
}


class Meter(Protocol):
    """Counts joules between start and stop; None where nothing was counted."""

    name: str

    def start(self) -> None:
        """Begin to count."""
        ...

    def stop(self) -> float | None:
        """Return the joules since `start`."""
        ...


class NoMeter:
    """A machine without sensors."""

    name = "none"

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> float | None:
        """Return None: not counted."""
        return None


class PowercapMeter:
    """The CPU's own energy counters (RAPL): packages, without board and memory."""

    name = "powercap"

    def __init__(self, counters: list[Path]) -> None:
        self._counters = counters
        self._started = [0] * len(counters)

    def start(self) -> None:
        """Read the counters."""
        self._started = [_microjoules(path) for path in self._counters]

    def stop(self) -> float | None:
        """Read them again; they wrap at max_energy_range_uj."""
        total = 0
        for path, started in zip(self._counters, self._started, strict=True):
            difference = _microjoules(path) - started
            if difference < 0:
                difference += _microjoules(path.with_name("max_energy_range_uj"))
            total += difference
        return total / 1e6


class HwmonMeter:
    """Power sensors of the board (INA219 and the like), sampled by a thread."""

    name = "hwmon"

    def __init__(self, sensors: list[Path]) -> None:
        self._sensors = sensors
        self._stop = threading.Event()
        self._watts: list[float] = []
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._started_s = 0.0

    def start(self) -> None:
        """Begin to sample."""
        self._started_s = time.perf_counter()
        self._thread.start()

    def stop(self) -> float | None:
        """Mean power times time."""
        elapsed_s = time.perf_counter() - self._started_s
        self._stop.set()
        self._thread.join()
        return sum(self._watts) / len(self._watts) * elapsed_s if self._watts else None

    def _sample(self) -> None:
        while True:
            self._watts.append(sum(_microjoules(path) for path in self._sensors) / 1e6)
            if self._stop.wait(SAMPLE_S):
                return


def find_meter(hwmon: Path = HWMON, powercap: Path = POWERCAP) -> Meter:
    """Choose the best meter: board sensors, then the CPU's counters, then none."""
    sensors = [path for path in sorted(hwmon.glob("hwmon*/power*_input")) if _readable(path)]
    if sensors:
        return HwmonMeter(sensors)
    # Zones with one colon are packages; their parts would count twice.
    counters = [path for path in sorted(powercap.glob("*/energy_uj")) if path.parent.name.count(":") == 1]
    counters = [path for path in counters if _readable(path)]
    return PowercapMeter(counters) if counters else NoMeter()


def core_watts(board: str) -> float | None:
    """Watts of one busy core of the board of that name; None for a board that is not known.

    >>> core_watts("Raspberry Pi 3 Model B Plus Rev 1.3")
    0.8
    """
    return next((watts for name, watts in CORE_WATTS.items() if board.startswith(name)), None)


def board_name(path: Path = DEVICE_TREE_MODEL) -> str:
    """Read the board's name; empty where there is no device tree."""
    try:
        return path.read_text().rstrip("\0\n")
    except OSError:
        return ""


def _microjoules(path: Path) -> int:
    return int(path.read_text())


def _readable(path: Path) -> bool:
    try:
        _microjoules(path)
    except (OSError, ValueError):
        return False
    return True
