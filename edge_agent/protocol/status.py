"""Retained and periodic JSON messages about devices and coordinators. docs/protocol.md, section 6."""

from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.json_message import MAX_INTEGER, VERSION, decode_json
from edge_agent.protocol.topics import MAX_STUDENTS

Session = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
# measured: of the whole board, by a sensor; estimated: what the agent's CPU time adds to the idle board.
PowerSource = Literal["measured", "estimated"]
# Upper bounds of the latency histogram's buckets, milliseconds.
HISTOGRAM_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


class _Status(BaseModel):
    # Unknown keys are ignored, so that newer programs may say more to older ones.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    v: int = Field(default=VERSION, ge=VERSION, le=VERSION)

    def encode(self) -> bytes:
        """UTF-8 JSON."""
        return self.model_dump_json(exclude_none=True).encode()


class NodeState(_Status):
    """Birth and will of a device: `node/<device>/state`, retained. A death of an older session is stale."""

    state: Literal["online", "offline"]
    session: Session = Field(description="start of the agent process, microseconds since 1970, always growing")


class StudentInfo(BaseModel):
    """One student that a device runs."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    student: int = Field(ge=0, lt=MAX_STUDENTS)
    network: str
    engine: str
    precision: str
    artifact: str
    width: int = Field(gt=0, lt=2**16)
    selftest_error: float = Field(ge=0, description="largest difference to the manifest's golden features")
    times_ms: dict[str, float] | None = Field(
        default=None, description="median milliseconds of each artifact that was tried at the install, by file"
    )
    artifacts_refused: dict[str, str] | None = Field(
        default=None, description="artifacts for this CPU that did not work here, and why, by file"
    )


class NodeInfo(_Status):
    """What a device is and runs: `node/<device>/info`, retained, published with every birth."""

    session: Session
    agent_version: str
    deployment: str
    students: tuple[StudentInfo, ...]
    machine: str
    python: str
    mqtt: str = ""
    auto: bool | None = Field(default=None, description="runs what `node/<device>/assignment` says")
    max_students: int | None = Field(default=None, ge=0, le=MAX_STUDENTS, description="most students it will run")
    refused: tuple[int, ...] | None = Field(default=None, description="assigned students that it could not load")
    camera: str | None = Field(default=None, description="source that its camera publishes as")
    insecure: bool | None = Field(default=None, description="true: connected over the network without TLS")
    certificate_until: AwareDatetime | None = Field(default=None, description="when its certificate runs out")
    packs: int | None = Field(default=None, ge=0, description="version of packs that it reads; absent: none")
    problems: tuple[str, ...] | None = Field(
        default=None, description="what a person has to mend on the device: mistakes on its card, a full disk"
    )


class NodeTelemetry(_Status):
    """How a device fares: `node/<device>/telemetry`, QoS 0, every few seconds. Absent: not measurable there."""

    session: Session
    uptime_s: float
    cpu_percent: float
    memory_rss_bytes: Count
    memory_available_bytes: Count
    temperature_c: float | None = None
    throttled: bool | None = None
    power_w: float | None = None
    power_source: PowerSource | None = None
    energy_j: dict[PowerSource, Annotated[float, Field(ge=0)]] | None = Field(
        default=None, description="since the agent's start"
    )
    frames_received: Count
    frames_answered: Count
    frames_dropped: Count = Field(description="live frames skipped for newer ones, or pushed out of a full mailbox")
    messages_refused: Count = Field(description="messages that break the protocol")
    queue_length: Count
    student_ms_p50: float | None = None
    student_ms_p95: float | None = None
    student_ms_histogram: tuple[Count, ...] | None = Field(
        default=None, description="interpreter runs since the start by HISTOGRAM_MS, the last one for all beyond"
    )
    frames_captured: Count | None = Field(default=None, description="frames that its own camera has published")


class CoordinatorInfo(_Status):
    """What a coordinator answers with: `coordinator/<id>/info`, retained; enough to send it images."""

    session: Session
    coordinator_version: str
    deployment: str
    deployment_name: str
    classes: tuple[str, ...]
    height: int
    width: int
    channels: int
    students: int
    deadline_ms: float
    packs: int | None = Field(default=None, ge=0, description="version of packs that it reads; absent: none")
    insecure: bool | None = Field(default=None, description="true: connected over the network without TLS")
    certificate_until: AwareDatetime | None = Field(default=None, description="when its certificate runs out")


StatusMessage = TypeVar("StatusMessage", bound=_Status)


def decode_status(kind: type[StatusMessage], payload: bytes) -> StatusMessage:
    """Read a status message of the given kind; UnsupportedVersionError, or DecodeError naming the field."""
    return decode_json(kind, payload)


def says_alive(payload: bytes) -> bool:
    """Whether the owner of a state topic, being alive, may leave it so: `online`, or purged on purpose."""
    if not payload:
        return True
    try:
        return decode_status(NodeState, payload).state == "online"
    except ProtocolError:
        return False


def is_of_another(payload: bytes, session: int) -> bool:
    """Whether a state topic is told `online` by another session than its owner's: two programs have one name."""
    try:
        told = decode_status(NodeState, payload)
    except ProtocolError:
        return False
    return told.state == "online" and told.session != session
