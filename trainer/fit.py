"""Will this student fit that device? Estimates per precision, and a refusal that says what would fit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.console.exit_codes import UserError
from trainer.device_profiles import DeviceProfile, Precision
from trainer.fit_limits import DEFAULT_RATE, with_unit
from trainer.network_cost import PRECISIONS, NetworkCost


@dataclass(frozen=True)
class Estimate:
    """One student at one precision on one board; all but parameters and macs are estimated."""

    network: str
    precision: Precision
    parameters: int
    macs: int
    artifact_bytes: int
    arena_bytes: int
    latency_s: float
    energy_j: float  # of the whole board while it computes
    power_w: float  # of the whole board, averaged over time at `rate`
    load: float  # share of the time that it computes; above 1 it cannot keep up
    rate: float

    def value(self, limit: str) -> float:
        """The figure that a limit speaks about, in the limit's base unit."""
        if limit == "memory":
            return self.artifact_bytes + self.arena_bytes
        names = {"artifact": "artifact_bytes", "arena": "arena_bytes", "latency": "latency_s", "energy": "energy_j"}
        return float(getattr(self, {"power": "power_w", **names}.get(limit, limit)))


@dataclass(frozen=True)
class FitReport:
    """Estimates for every precision, and what of the limits they break."""

    device: DeviceProfile
    limits: Mapping[str, float]
    estimates: tuple[Estimate, ...]
    broken: Mapping[Precision, tuple[str, ...]]  # sentences; empty where it fits
    suggestions: tuple[str, ...]

    @property
    def fitting(self) -> tuple[Precision, ...]:
        """Precisions that keep every limit."""
        return tuple(precision for precision, sentences in self.broken.items() if not sentences)

    def require(self, precision: Precision) -> None:
        """UserError in one line unless the student fits at this precision."""
        sentences = self.broken[precision]
        if sentences:
            first = self.estimates[0]
            advice = f"; what fits: {'; '.join(self.suggestions)}" if self.suggestions else ""
            raise UserError(
                f"{first.network} as {precision} does not fit {self.device.title}: {', '.join(sentences)}{advice}"
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; every estimated figure sits under the key `estimated`."""
        rows = [
            {
                "precision": e.precision,
                "fits": not self.broken[e.precision],
                "broken": list(self.broken[e.precision]),
                "parameters": e.parameters,
                "macs": e.macs,
                "estimated": {
                    "artifact_bytes": e.artifact_bytes,
                    "arena_bytes": e.arena_bytes,
                    "latency_ms": round(e.latency_s * 1e3, 3),
                    "energy_mj": round(e.energy_j * 1e3, 3),
                    "power_w": round(e.power_w, 3),
                },
            }
            for e in self.estimates
        ]
        return {
            "network": self.estimates[0].network,
            "device": self.device.name,
            "rate_per_s": self.estimates[0].rate,
            "limits": dict(self.limits),
            "precisions": rows,
            "suggestions": list(self.suggestions),
        }

    def table(self) -> list[tuple[str, ...]]:
        """Rows for a terminal, heading first."""
        heading = ("precision", "fits", "artifact*", "arena*", "latency*", "energy*", "mean power*")
        body = [
            (
                e.precision,
                "no: " + ", ".join(self.broken[e.precision]) if self.broken[e.precision] else "yes",
                with_unit("memory", e.artifact_bytes),
                with_unit("memory", e.arena_bytes),
                with_unit("latency", e.latency_s),
                with_unit("energy", e.energy_j),
                with_unit("power", e.power_w),
            )
            for e in self.estimates
        ]
        return [heading, *body]


def estimate(
    network: str, cost: NetworkCost, precision: Precision, device: DeviceProfile, rate: float = DEFAULT_RATE
) -> Estimate:
    """Latency = MACs / effective rate; energy = busy power x latency; mean power = idle + load x (busy - idle)."""
    latency_s = cost.macs / device.macs_per_s(precision)
    load = latency_s * rate
    return Estimate(
        network=network,
        precision=precision,
        parameters=cost.parameters,
        macs=cost.macs,
        artifact_bytes=cost.artifact_bytes[precision],
        arena_bytes=cost.arena_bytes[precision],
        latency_s=latency_s,
        energy_j=device.busy_w.value * latency_s,
        power_w=device.idle_w.value + min(1.0, load) * (device.busy_w.value - device.idle_w.value),
        load=load,
        rate=rate,
    )


def check_fit(
    network: str,
    cost: NetworkCost,
    limits: Mapping[str, float],
    device: DeviceProfile,
    alternatives: Mapping[str, NetworkCost] | None = None,
    precision: Precision = "int8",
) -> FitReport:
    """Hold one student against the limits at every precision; `alternatives` are the networks it may suggest."""
    rate = limits.get("rate", DEFAULT_RATE)
    estimates = tuple(estimate(network, cost, each, device, rate) for each in PRECISIONS)
    broken = {e.precision: _broken(e, limits, device) for e in estimates}
    advice: tuple[str, ...] = ()
    if broken[precision]:
        advice = _suggestions(network, estimates, broken, limits, device, alternatives or {}, precision)
    return FitReport(device, dict(limits), estimates, broken, advice)


def _broken(e: Estimate, limits: Mapping[str, float], device: DeviceProfile) -> tuple[str, ...]:
    sentences = [
        f"{key} {with_unit(key, e.value(key))}{'' if key in ('macs', 'parameters') else ' (estimated)'} "
        f"exceeds {with_unit(key, limit)}"
        for key, limit in limits.items()
        if key != "rate" and e.value(key) > limit
    ]
    if e.load > 1:
        sentences.append(f"{1 / e.latency_s:.3g} images/s (estimated) are fewer than {e.rate:g}")
    if e.value("memory") > device.memory_bytes.value:
        sentences.append(f"the board has {with_unit('memory', device.memory_bytes.value)}")
    return tuple(sentences)


def _suggestions(
    network: str,
    estimates: Sequence[Estimate],
    broken: Mapping[Precision, tuple[str, ...]],
    limits: Mapping[str, float],
    device: DeviceProfile,
    alternatives: Mapping[str, NetworkCost],
    precision: Precision,
) -> tuple[str, ...]:
    """Other precisions of the same network, the largest other network that fits, and a lower rate."""
    advice = [f"{network} as {each}" for each, sentences in broken.items() if not sentences]
    rate = limits.get("rate", DEFAULT_RATE)
    fitting = [
        (cost.macs, name)
        for name, cost in alternatives.items()
        if name != network and not _broken(estimate(name, cost, precision, device, rate), limits, device)
    ]
    if fitting:
        macs, name = max(fitting)
        advice.append(f"{name} as {precision} ({with_unit('macs', macs)} MACs)")
    asked = next(e for e in estimates if e.precision == precision)
    slower = _sustainable_rate(asked, limits, device)
    at_slower = estimate(network, _cost_of(asked), precision, device, slower) if slower > 0 else None
    if at_slower and slower < rate and not _broken(at_slower, limits, device):
        advice.append(f"{network} as {precision} at {slower:.3g} images/s")
    if "power" in limits and limits["power"] < device.idle_w.value:
        advice.append(f"a power limit above the {device.idle_w.value:g} W that {device.title} draws when idle")
    return tuple(advice)


def _sustainable_rate(e: Estimate, limits: Mapping[str, float], device: DeviceProfile) -> float:
    """Images per second that keep the mean power limit, rounded down to three digits; 0 when none does."""
    load = 1.0
    if "power" in limits:
        load = min(1.0, (limits["power"] - device.idle_w.value) / (device.busy_w.value - device.idle_w.value))
    rate = max(0.0, load) / e.latency_s
    if rate == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(rate)) - 2)
    return math.floor(rate / step) * step


def _cost_of(e: Estimate) -> NetworkCost:
    return NetworkCost(e.parameters, e.macs, {e.precision: e.artifact_bytes}, {e.precision: e.arena_bytes})
