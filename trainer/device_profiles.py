"""What is known about the boards that students run on; each figure says where it comes from.

Throughput is of whole published networks, not of peak arithmetic: MobileNet v2 at 224 px (0.300 GMAC) on four threads
under XNNPACK, README table of 8 February 2022, unless said otherwise. Nothing here was measured by this project, so all
that is derived from it is called estimated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from edge_agent.console.exit_codes import ExitCode, UserError

Precision = Literal["float32", "float16", "dynamic", "int8"]


@dataclass(frozen=True)
class Figure:
    """A number and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True)
class DeviceProfile:
    """One board: four cores, whole-board power at the supply."""

    name: str
    title: str
    memory_bytes: Figure
    float_macs_per_s: Figure  # float32, four threads
    int8_macs_per_s: Figure  # int8 with int32 accumulators, four threads
    idle_w: Figure
    busy_w: Figure

    def macs_per_s(self, precision: Precision) -> float:
        """Effective rate; float16 files are computed in float32, dynamic ranges in int8."""
        return (self.int8_macs_per_s if precision in ("int8", "dynamic") else self.float_macs_per_s).value


MOBILENET_V2_MACS = 0.300e9
MIB = 1024 * 1024
A53_CLOCK_RATIO = 1.0 / 1.4  # GHz of the Zero 2 W and of the 3B+, the same cores


def _xnnpack(latency_ms: float, board: str) -> Figure:
    return Figure(
        MOBILENET_V2_MACS / (latency_ms / 1e3), f"MobileNet v2 takes {latency_ms:g} ms on {board} (XNNPACK README)"
    )


_PROFILES = (
    DeviceProfile(
        name="pi3b+",
        title="Raspberry Pi 3B+",
        memory_bytes=Figure(1024 * MIB, "data sheet"),
        float_macs_per_s=_xnnpack(79, "RPi 3+, 32-bit"),
        int8_macs_per_s=_xnnpack(30, "RPi 3+, 32-bit"),
        idle_w=Figure(1.9, "pidramble.com, idle, 350 mA"),
        busy_w=Figure(5.1, "pidramble.com, four busy cores, 980 mA"),
    ),
    DeviceProfile(
        name="pi4",
        title="Raspberry Pi 4B",
        memory_bytes=Figure(1024 * MIB, "data sheet, the smallest variant"),
        float_macs_per_s=_xnnpack(46, "RPi 4, arm64"),
        int8_macs_per_s=_xnnpack(17, "RPi 4, arm64"),
        idle_w=Figure(2.7, "pidramble.com, idle, 540 mA"),
        busy_w=Figure(6.4, "pidramble.com, four busy cores, 1280 mA"),
    ),
    DeviceProfile(
        name="pi5",
        title="Raspberry Pi 5",
        memory_bytes=Figure(1024 * MIB, "data sheet, the smallest variant"),
        float_macs_per_s=Figure(16e9, "estimated: 2.5 x the Pi 4; the maker says 2-3 x"),
        int8_macs_per_s=Figure(44e9, "estimated: 2.5 x the Pi 4, though the A76 has dot products besides"),
        idle_w=Figure(3.0, "estimated: the middle of the 2.7-3.3 W that reviews report"),
        busy_w=Figure(8.5, "estimated: the middle of the 7-10 W that reviews report"),
    ),
    DeviceProfile(
        name="pi-zero-2w",
        title="Raspberry Pi Zero 2 W",
        memory_bytes=Figure(512 * MIB, "data sheet"),
        float_macs_per_s=Figure(
            MOBILENET_V2_MACS / 79e-3 * A53_CLOCK_RATIO,
            "estimated: the 3B+'s cores at 1.0 instead of 1.4 GHz (ncnn's README: MobileNet v1 3.5 GMAC/s, v2 2.1)",
        ),
        int8_macs_per_s=Figure(6.3e9, "MobileNet v1 int8 takes 90.8 ms under ncnn (ncnn's benchmark README)"),
        idle_w=Figure(0.6, "cnx-software.com 2021-12-09, 120 mA at 5 V"),
        busy_w=Figure(2.6, "estimated: andrejacobs.org measured 1.4 W above a busy Zero W, whose maximum is 1.2 W"),
    ),
)
PROFILES: Mapping[str, DeviceProfile] = MappingProxyType({profile.name: profile for profile in _PROFILES})


def device_profile(name: str) -> DeviceProfile:
    """The profile of that name; UserError listing the names otherwise.

    >>> device_profile("pi3b+").busy_w.value
    5.1
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise UserError(
            f"device {name!r} has no profile; expected one of {', '.join(PROFILES)}", ExitCode.USAGE
        ) from None
