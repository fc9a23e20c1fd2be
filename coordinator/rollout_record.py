"""What a rollout is: what was asked for, how far it is, and what it sees of a device. Pure."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from edge_agent.protocol.update_messages import NodeUpdate

Phase = Literal["canary", "preparing", "switching", "complete", "reverting", "failed"]


class RolloutPlan(BaseModel):
    """What an operator asked for."""

    model_config = ConfigDict(frozen=True)
    rollout: int
    target: str
    previous: str
    students: int
    canaries: tuple[str, ...] = ()
    canary_frames: int = 100
    min_agreement: float = 0.9
    max_latency_ratio: float = 1.5
    timeout_s: float = 300.0
    trial_s: float = 3.0


class RolloutRecord(BaseModel):
    """What must survive the coordinator's death."""

    model_config = ConfigDict(frozen=True)
    plan: RolloutPlan
    phase: Phase
    from_frames: dict[str, int] = {}
    back_from_frames: dict[str, int] = {}
    error: str = ""


@dataclass(frozen=True, slots=True)
class DeviceView:
    """What the roster knows of one device now. `students`: those that it runs, of whatever deployment."""

    online: bool
    students: tuple[int, ...]
    update: NodeUpdate | None = None
