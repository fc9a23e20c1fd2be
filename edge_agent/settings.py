"""Settings of the agent: nonn-agent run --help lists them all."""

import platform
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.topics import MAX_STUDENTS, check_id


def default_device_id() -> str:
    """The host's name as a legal device id."""
    name = re.sub(r"[^a-z0-9]+", "-", platform.node().split(".")[0].lower()).strip("-")
    return name[:63].strip("-") or "device"


def _device_id(text: str) -> str:
    return check_id(text, "device")


def _site_id(text: str) -> str:
    return check_id(text, "site")


class AgentSettings(BaseModel):
    """What one agent process runs and where it connects."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    deployment: Path = Field(description="deployment directory: manifest.json and its files")
    students: tuple[Annotated[int, Field(ge=0, lt=MAX_STUDENTS)], ...] = Field(
        min_length=1, description="indices of the students that this device runs, such as 0 or 0,2"
    )
    site: Annotated[str, AfterValidator(_site_id)] = Field(default="home", description="name of the site")
    device: Annotated[str, AfterValidator(_device_id)] = Field(
        default_factory=default_device_id, description="name of this device, unique at its site [host name]"
    )
    sources: tuple[str, ...] = Field(default=("+",), description="sources to answer, or + for all")
    engine: Literal["auto", "tflite", "tvm"] = Field(default="auto", description="inference engine")
    precision: Literal["auto", "int8", "dynamic", "float16", "float32"] = Field(
        default="auto", description="artifact to run; auto takes the smallest"
    )
    num_threads: int = Field(default=1, ge=1, le=64, description="threads of the interpreter")
    mailbox_frames: int = Field(default=64, ge=1, le=4096, description="frames that may wait for the student")
    telemetry_s: float = Field(default=5.0, gt=0, le=3600, description="seconds between telemetry messages")
    log_format: Literal["text", "json"] = Field(default="text", description="text or JSON lines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level logged")
    broker: BrokerSettings = BrokerSettings()
