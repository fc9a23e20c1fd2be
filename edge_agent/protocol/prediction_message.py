"""The answer for one frame, as JSON. docs/protocol.md, section 5."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge_agent.protocol.frame_message import MAX_FRAME_ID
from edge_agent.protocol.json_message import VERSION, decode_json
from edge_agent.protocol.topics import MAX_STUDENTS

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
StudentIndex = Annotated[int, Field(ge=0, lt=MAX_STUDENTS)]


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
    v: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    frame_id: int = Field(ge=0, le=MAX_FRAME_ID)
    source: str
    coordinator: str
    deployment: str
    result: Literal["complete", "degraded", "abandoned"]
    class_index: int | None = Field(default=None, ge=0)
    class_name: str | None = None
    probabilities: tuple[Probability, ...] = ()
    present: tuple[StudentIndex, ...] = ()
    missing: tuple[StudentIndex, ...] = ()
    latency_ms: LatencySplit
    reason: Literal["deadline", "overflow", "shutdown", "restart"] | None = Field(
        default=None, description="why the frame was abandoned", exclude_if=lambda reason: reason is None
    )

    @model_validator(mode="after")
    def _answered_or_not(self) -> Self:
        if self.result == "abandoned":
            if self.class_index is not None or self.class_name is not None or self.probabilities:
                raise ValueError("an abandoned frame has no class and no probabilities")
        elif self.class_index is None or self.class_name is None or self.class_index >= len(self.probabilities):
            raise ValueError("expected class_index, class_name and a probability for each class")
        return self

    def encode(self) -> bytes:
        """UTF-8 JSON."""
        return self.__pydantic_serializer__.to_json(self)


def decode_prediction(payload: bytes) -> PredictionMessage:
    """Read an answer; UnsupportedVersionError or DecodeError otherwise."""
    return decode_json(PredictionMessage, payload)
