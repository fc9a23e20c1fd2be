"""Messages of model updates: what a site shall run, when it switches, how far each device is. docs/updates.md."""

import base64
import binascii
import json
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_agent.protocol.chunks import MAX_WINDOW
from edge_agent.protocol.errors import DecodeError, ManifestError
from edge_agent.protocol.frame_message import MAX_FRAME_ID
from edge_agent.protocol.json_message import MAX_INTEGER, MAX_JSON_BYTES, VERSION, decode_json
from edge_agent.protocol.manifest import MAX_MANIFEST_BYTES, Sha256
from edge_agent.protocol.signature import MAX_SIGNATURES, Signature

DeploymentId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Id = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Serial = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Content = Annotated[str, Field(max_length=MAX_MANIFEST_BYTES * 4 // 3 + 4)]
MAX_DESIRED_BYTES = 2 * MAX_MANIFEST_BYTES  # a manifest in base64, its signatures, a rollback order

UpdateStateName = Literal["idle", "downloading", "verifying", "ready", "active", "rolled_back", "failed"]


class _Update(BaseModel):
    # Unknown keys are ignored, so that newer programs may say more to older ones.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    v: int = Field(default=VERSION, ge=VERSION, le=VERSION)

    def encode(self) -> bytes:
        """UTF-8 JSON."""
        return self.model_dump_json(exclude_none=True).encode()


class SignedContent(BaseModel):
    """Bytes and signatures over them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    content: Content = Field(description="base64")
    signatures: tuple[Signature, ...] = Field(default=(), max_length=MAX_SIGNATURES)

    @classmethod
    def of(cls, content: bytes, signatures: tuple[Signature, ...]) -> "SignedContent":
        """Wrap `content`."""
        return cls(content=base64.b64encode(content).decode(), signatures=signatures)

    @property
    def raw(self) -> bytes:
        """The bytes that were signed; DecodeError if it is not base64."""
        try:
            return base64.b64decode(self.content, validate=True)
        except (binascii.Error, ValueError):
            raise DecodeError("signed content is not base64") from None


class RollbackOrder(BaseModel):
    """Signed permission to go back: to `deployment`, from any version up to `undoes_version`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_: Literal[1] = Field(default=1, alias="schema")
    deployment: DeploymentId
    undoes_version: int = Field(gt=0)
    serial: Serial = Field(
        description="microseconds since 1970 at signing; a device takes no order twice or out of turn"
    )
    expires: Serial = Field(description="seconds since 1970; later, no device takes it up any more")

    def to_bytes(self) -> bytes:
        """The bytes to sign: UTF-8 JSON, sorted keys."""
        return json.dumps(self.model_dump(by_alias=True), sort_keys=True).encode()


def parse_rollback(content: bytes) -> RollbackOrder:
    """Read an order; ManifestError otherwise."""
    try:
        return RollbackOrder.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise ManifestError(f"rollback order: {error.errors(include_url=False)[0]['msg']}") from None


class DesiredMessage(_Update):
    """`deployment/desired`, retained: what the site shall run, or get ready to run."""

    rollout: Serial = Field(description="grows with every deploy and rollback of the site")
    server: Id = Field(description="who answers request/chunks/<server>")
    manifest: SignedContent
    rollback: SignedContent | None = None
    canaries: tuple[Id, ...] | None = Field(
        default=None, max_length=1024, description="only these devices prepare, and run it in shadow; absent: all"
    )


class SwitchMessage(_Update):
    """`deployment/switch`, retained: `deployment` answers from frame N of each source on."""

    rollout: Serial
    deployment: DeploymentId
    previous: DeploymentId | None = None
    complete: bool = Field(description="false: as `from_frames` says, the rest stays; true: every frame, for good")
    from_frames: dict[Id, Annotated[int, Field(ge=0, le=MAX_FRAME_ID)]] = Field(default={}, max_length=4096)
    reason: str = Field(default="", max_length=500, description="why, when a switch is taken back")


class NodeUpdate(_Update):
    """`node/<device>/update`, retained: how far a device is."""

    state: UpdateStateName
    rollout: Serial = 0
    progress: float = Field(default=0.0, ge=0, le=1, description="of the download")
    installed: DeploymentId | None = Field(default=None, description="what answers frames")
    target: DeploymentId | None = Field(default=None, description="what it prepares, or prepared last")
    students: tuple[int, ...] = Field(default=(), max_length=256, description="students that the target has here")
    shadow: bool = Field(default=False, description="the target runs beside the installed one, as a canary")
    error: str = Field(default="", max_length=500)


class ChunkRequest(_Update):
    """`request/chunks/<server>`: chunks of one file, please, on `chunk/<sha256>/<number>`."""

    device: Id
    sha256: Sha256
    chunks: tuple[Annotated[int, Field(ge=0, lt=2**16)], ...] = Field(min_length=1, max_length=MAX_WINDOW)


class DeployRequest(_Update):
    """`request/deploy`: fetch this deployment from `server`, then bring it to the site.

    Without a manifest it is a rollback to a deployment that the coordinator has kept.
    """

    transaction: Id
    server: Id
    manifest: SignedContent | None = None
    rollback: SignedContent | None = Field(default=None, description="a signed RollbackOrder")
    canaries: tuple[Id, ...] = Field(default=(), max_length=1024)
    canary_frames: int = Field(default=100, ge=1, le=1_000_000, description="frames to compare")
    min_agreement: float = Field(default=0.9, ge=0, le=1, description="share of frames with the same class")
    max_latency_ratio: float = Field(default=1.5, gt=0, le=1000, description="p95 of the new student over the old")
    timeout_s: float = Field(default=300.0, gt=0, le=86_400, description="longest wait for ready devices")


class DeployReply(_Update):
    """`response/deploy`: whether a request was taken up. How it goes on is in `coordinator/<id>/rollout`."""

    transaction: str
    status: Literal["ok", "error"]
    rollout: Serial = 0
    error: str = ""


class CanaryReport(BaseModel):
    """What the shadow run found so far."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    frames: int = 0
    agreement: float | None = None
    latency_ratio: float | None = None
    old_ms_p95: float | None = None
    new_ms_p95: float | None = None


RolloutPhase = Literal["idle", "fetching", "canary", "preparing", "switching", "complete", "reverting", "failed"]


class RolloutStatus(_Update):
    """`coordinator/<id>/rollout`, retained: for operators, dashboards and `deploy --wait`."""

    phase: RolloutPhase
    rollout: Serial = 0
    active: DeploymentId
    active_version: int
    previous: DeploymentId | None = None
    previous_version: int | None = None
    target: DeploymentId | None = None
    progress: float = 0.0
    waiting_for: tuple[int, ...] = Field(default=(), description="students without a ready device")
    canary: CanaryReport | None = None
    error: str = ""


UpdateMessage = TypeVar("UpdateMessage", bound=_Update)


def decode_update(kind: type[UpdateMessage], payload: bytes) -> UpdateMessage:
    """Read an update message; UnsupportedVersionError, or DecodeError naming the field."""
    carries_manifest = kind in (DesiredMessage, DeployRequest)
    return decode_json(kind, payload, MAX_DESIRED_BYTES if carries_manifest else MAX_JSON_BYTES)
