"""What the live loop hands to the web server: immutable, bounded, at most ten times a second. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.feature_merger import Contribution
from coordinator.roster import Device
from coordinator.update_view import UpdateView
from edge_agent.protocol.filter_edges import Edge
from edge_agent.protocol.head import MergeHead
from edge_agent.protocol.manifest import Manifest
from edge_agent.protocol.prediction_message import PredictionMessage
from edge_agent.protocol.update_messages import RolloutStatus


@dataclass(frozen=True, slots=True)
class ShownDeployment:
    """A deployment as the dashboard needs it."""

    id: str
    manifest: Manifest
    head: MergeHead
    edges: tuple[Edge, ...] = ()


@dataclass(frozen=True, slots=True)
class Sighting:
    """One answered frame. image: (height, width, channels), uint8. `capture_ms`: None where clocks disagree."""

    prediction: PredictionMessage
    image: NDArray[np.uint8]
    capture_ms: float | None
    opened_s: float
    contributions: Mapping[int, Contribution]


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """One source. `answers`: the latest ones, each (monotonic seconds, result, milliseconds)."""

    name: str
    last: Sighting | None
    age_s: float
    answers: tuple[tuple[float, str, float], ...]
    labelled: int
    correct: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the dashboard shows at one moment."""

    serial: int
    taken_s: float
    connected: bool
    deployment: str
    sources: tuple[SourceSnapshot, ...]
    devices: tuple[Device, ...]
    updates: Mapping[str, UpdateView]
    rollout: RolloutStatus | None = None
