"""Settings of the agent: nonn-agent run --help lists them all."""

import platform
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edge_agent.console.update_settings import UpdateSettings
from edge_agent.metrics_settings import MetricsSettings
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.topics import MAX_STUDENTS, check_id, check_sources


def default_device_id() -> str:
    """The host's name as a legal device id."""
    name = re.sub(r"[^a-z0-9]+", "-", platform.node().split(".")[0].lower()).strip("-")
    return name[:63].strip("-") or "device"


def _device_id(text: str) -> str:
    return check_id(text, "device")


def _site_id(text: str) -> str:
    return check_id(text, "site")


def _source_id(text: str) -> str:
    return check_id(text, "source")


def _group_id(text: str) -> str:
    return check_id(text, "share_group")


def _each_once(students: Any) -> Any:
    if students != "auto" and len(set(students)) < len(students):
        raise ValueError(f"students {', '.join(map(str, students))}: expected each of them once")
    return students


def _student_words(given: Any) -> Any:
    """`auto` and `none` as people write them in flags and files; a number that stands alone in a file is one, too."""
    words = list(given) if isinstance(given, list | tuple) else [given]
    if words == ["auto"]:
        return "auto"
    if words == ["none"]:
        return ()
    if not all(isinstance(word, int) or (isinstance(word, str) and word.strip().isdecimal()) for word in words):
        raise ValueError(
            f"students {', '.join(map(str, words))}: expected numbers such as 0,2, or auto alone, or none alone"
        )
    return words


Students = tuple[Annotated[int, Field(ge=0, lt=MAX_STUDENTS)], ...]


class CameraSettings(BaseModel):
    """The camera role: images that this device publishes as a source."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: Annotated[str, AfterValidator(_source_id)] | None = Field(
        default=None, description="publish images as this source; without it the device has no camera role"
    )
    kind: Literal["picamera2", "v4l2", "video", "folder", "http"] = Field(
        default="picamera2", description="Pi camera, V4L2 device, video file, folder of images or HTTP snapshot"
    )
    location: str = Field(default="", description="/dev/video0, a file, a folder or a URL, as the kind needs it")
    frames_per_s: float = Field(default=5.0, gt=0, le=240, description="images a second")
    # The longest that any Pi camera has is 694 s (HQ); the driver counts in 32 bits.
    exposure_us: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="fixed exposure time; automatic without it"
    )
    gain: float | None = Field(default=None, ge=1, le=64, description="fixed analogue gain; automatic without it")
    picture_per_s: float = Field(
        default=0.0, ge=0, le=30, description="JPEG pictures a second for people to see, on picture/<source>"
    )
    picture_width: int = Field(default=640, ge=32, le=4096, description="width of these pictures, pixels")
    repeat: bool = Field(default=False, description="begin a folder or video again at its end")


class AgentSettings(BaseModel):
    """What one agent process runs and where it connects."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    deployment: Path | None = Field(default=None, description="deployment directory: manifest.json and its files")
    students: Annotated[Students | Literal["auto"], BeforeValidator(_student_words), AfterValidator(_each_once)] = (
        Field(description="indices of the students that this device runs, as 0,2; auto: as assigned; none: camera only")
    )
    max_students: int = Field(default=4, ge=1, le=MAX_STUDENTS, description="most students to run when set to auto")
    site: Annotated[str, AfterValidator(_site_id)] = Field(default="home", description="name of the site")
    device: Annotated[str, AfterValidator(_device_id)] = Field(
        default_factory=default_device_id, description="name of this device, unique at its site [host name]"
    )
    sources: Annotated[tuple[str, ...], AfterValidator(check_sources)] = Field(
        default=("+",), description="sources to answer, or + for all"
    )
    share_group: Annotated[str, AfterValidator(_group_id)] | None = Field(
        default=None, description="devices of one group share the frames among them: each frame goes to one of them"
    )
    engine: Literal["auto", "tflite", "tvm"] = Field(default="auto", description="inference engine")
    precision: Literal["auto", "int8", "dynamic", "float16", "float32"] = Field(
        default="auto", description="artifact to run; auto takes the smallest"
    )
    num_threads: int = Field(default=1, ge=1, le=64, description="threads of the interpreter")
    mailbox_frames: int = Field(default=64, ge=1, le=4096, description="frames that may wait for the student")
    stuck_after_s: float = Field(
        default=30.0, ge=0.5, le=3600, description="seconds after which an inference counts as stuck: a restart"
    )
    # As long without a crash, a stuck interpreter or a failed probe proves a new student: longer than watchdogs take.
    proof_s: float = Field(
        default=30.0, gt=0, le=3600, description="seconds that a new deployment must run to count as sound"
    )
    telemetry_s: float = Field(default=5.0, gt=0, le=3600, description="seconds between telemetry messages")
    problems_file: Path | None = Field(
        default=None, description="text file whose lines the device tells its site: what a person has to mend on it"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="text or JSON lines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level logged")
    camera: CameraSettings = CameraSettings()
    updates: UpdateSettings = UpdateSettings()
    broker: BrokerSettings = BrokerSettings()
    metrics: MetricsSettings = MetricsSettings()

    @model_validator(mode="after")
    def _roles_are_whole(self) -> Self:
        if self.students and self.deployment is None and self.updates.store is None:
            raise ValueError("deployment: expected --deployment, NONN_DEPLOYMENT or deployment in the TOML file")
        if not self.students and self.camera.source is None:
            raise ValueError("students: none, and no camera source: expected at least one role")
        if self.camera.source is not None and self.camera.kind != "picamera2" and not self.camera.location:
            raise ValueError(f"camera.location: expected what a {self.camera.kind} camera reads from")
        return self
