"""Limits of a device as people write them: `memory=500KB,macs=30M,power=2W`."""

import re
from collections.abc import Mapping

from edge_agent.console.exit_codes import ExitCode, UserError

_BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 1024.0, "MIB": 1024.0**2, "GIB": 1024.0**3}
_COUNT = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
# key: (what it limits, unit -> factor, example)
LIMITS: Mapping[str, tuple[str, Mapping[str, float], str]] = {
    "memory": ("artifact and tensor arena together", _BYTES, "500KB"),
    "artifact": ("bytes of the file", _BYTES, "300KB"),
    "arena": ("bytes of the tensor arena", _BYTES, "200KB"),
    "parameters": ("parameters", _COUNT, "200K"),
    "macs": ("multiply-accumulates per image", _COUNT, "30M"),
    "latency": ("time per image", {"MS": 1e-3, "S": 1.0}, "50ms"),
    "energy": ("energy of the board per image", {"MJ": 1e-3, "J": 1.0}, "100mJ"),
    "power": ("mean power of the board at the rate", {"MW": 1e-3, "W": 1.0}, "2W"),
    "rate": ("images per second", {"": 1.0, "/S": 1.0, "FPS": 1.0, "HZ": 1.0}, "5/s"),
}
DEFAULT_RATE = 1.0  # images per second where none is asked for
_VALUE = re.compile(r"^(\d+(?:\.\d+)?)\s*([A-Za-z/]*)$")


def parse_limits(text: str) -> dict[str, float]:
    """`memory=500KB,macs=30M,power=2W` -> base units; UserError names the part that is wrong.

    >>> parse_limits("memory=500KB, macs=30M,power=2W")
    {'memory': 500000.0, 'macs': 30000000.0, 'power': 2.0}
    """
    limits: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in LIMITS:
            raise UserError(
                f"--fit: {part!r} is not a limit; expected KEY=VALUE with {', '.join(LIMITS)}", ExitCode.USAGE
            )
        if key in limits:
            raise UserError(f"--fit: {key} is given twice", ExitCode.USAGE)
        _, units, example = LIMITS[key]
        match = _VALUE.match(value)
        factor = units.get(match[2].upper()) if match else None
        if match is None or factor is None or float(match[1]) == 0:
            known = ", ".join(unit for unit in units if unit)
            raise UserError(
                f"--fit: {part!r} has no such value; expected {key}={example} (units {known})", ExitCode.USAGE
            )
        limits[key] = float(match[1]) * factor
    if not limits:
        raise UserError("--fit: no limit given; expected for example memory=500KB,macs=30M,power=2W", ExitCode.USAGE)
    return limits


def with_unit(limit: str, value: float) -> str:
    """A figure in the unit people use for it.

    >>> with_unit("memory", 408080), with_unit("macs", 26.7e6), with_unit("latency", 0.0027), with_unit("power", 1.91)
    ('408 KB', '26.7 M', '2.7 ms', '1.91 W')
    """
    if limit in ("memory", "artifact", "arena"):
        return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} KB"
    if limit in ("macs", "parameters"):
        return f"{value / 1e6:.4g} M" if value >= 1e6 else f"{value / 1e3:.4g} K"
    if limit in ("latency", "energy"):
        return f"{value * 1e3:.3g} {'ms' if limit == 'latency' else 'mJ'}"
    return f"{value:.3g} {'W' if limit == 'power' else 'images/s'}"
