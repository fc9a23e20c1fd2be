"""Assignments, requests and the coordinator's own telemetry, as JSON. docs/protocol.md, section 6."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge_agent.protocol.json_message import VERSION
from edge_agent.protocol.status import Count, Session
from edge_agent.protocol.topics import MAX_STUDENTS

StudentIndex = Annotated[int, Field(ge=0, lt=MAX_STUDENTS)]


class _FleetMessage(BaseModel):
    # Unknown keys are ignored, so that newer programs may say more to older ones.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    v: int = Field(default=VERSION, ge=VERSION, le=VERSION)

    def encode(self) -> bytes:
        """UTF-8 JSON."""
        return self.model_dump_json(exclude_none=True).encode()


class NodeAssignment(_FleetMessage):
    """What a device that is set to `auto` shall run: `node/<device>/assignment`, retained, from the coordinator."""

    students: tuple[StudentIndex, ...]
    by: Literal["auto", "hand"] = Field(default="auto", description="`hand`: an operator's choice, kept until undone")


class CoordinatorTelemetry(_FleetMessage):
    """How a coordinator fares: `coordinator/<id>/telemetry`, QoS 0, every few seconds."""

    session: Session
    uptime_s: float
    cpu_percent: float
    memory_rss_bytes: Count
    open_frames: Count
    counts: dict[str, Count] = Field(description="frames and features by what became of them, since the start")
    deadline_ms: dict[str, float] = Field(default={}, description="present deadline of live frames, by source")


class ClassifyRequest(_FleetMessage):
    """An image to classify, for MQTT 3.1.1: `request/classify`. MQTT 5 callers may send the bare image instead."""

    transaction: Annotated[str, Field(min_length=1, max_length=64)]
    image: str = Field(description="PNG or JPEG file, base64")


class AssignRequest(_FleetMessage):
    """An operator's choice for one device: `request/assign`; no `students` gives it back to the coordinator."""

    transaction: Annotated[str, Field(max_length=64)] = ""
    device: str
    students: tuple[StudentIndex, ...] | None = None


class Response(_FleetMessage):
    """The answer to a request: `response/<verb>`, or the response topic of an MQTT 5 request."""

    status: Literal["ok", "error"]
    transaction: str = ""
    error: str | None = None
    data: dict[str, Any] | None = None
