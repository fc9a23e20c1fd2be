"""The answer for one frame, as JSON. docs/protocol.md, section 5."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_agent.protocol.errors import DecodeError, UnsupportedVersionError
from edge_agent.protocol.frame_message import MAX_FRAME_ID

VERSION: Literal[1] = 1
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LatencySplit(BaseModel):
    """Milliseconds from the frame's arrival at the coordinator to its answer; the parts add up to `total`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    total: NonNegative
    student: NonNegative = Field(description="interpreter time of the last student in")
    queue: NonNegative = Field(description="waiting and copying on that student's device")
    transport: NonNegative = Field(description="network and broker; with a missing student, the wait for the deadline")
    merge: NonNegative = Field(description="head and answer")


class PredictionMessage(BaseModel):
    """One answer. `result` is `complete` with all students, `degraded` with some, `abandoned` with too few."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    v: Literal[1] = VERSION
    frame_id: int = Field(ge=0, le=MAX_FRAME_ID)
    source: str
    coordinator: str
    deployment: str
    result: Literal["complete", "degraded", "abandoned"]
    class_index: int | None = Field(default=None, ge=0)
    class_name: str | None = None
    probabilities: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    present: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    latency_ms: LatencySplit

    def encode(self) -> bytes:
        """UTF-8 JSON."""
        return self.model_dump_json().encode()


def decode_prediction(payload: bytes) -> PredictionMessage:
    """Read an answer; UnsupportedVersionError or DecodeError otherwise."""
    try:
        return PredictionMessage.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"] == ("v",):
            raise UnsupportedVersionError(f"prediction: version {first['input']!r}, expected {VERSION}") from None
        raise DecodeError(f"prediction: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
