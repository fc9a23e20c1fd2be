"""Settings of the coordinator and of its clients."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from coordinator.home_assistant_settings import HomeAssistantSettings
from coordinator.web.settings import DashboardSettings
from edge_agent.console.update_settings import UpdateSettings
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.topics import check_id, check_sources


def _site_id(text: str) -> str:
    return check_id(text, "site")


def _coordinator_id(text: str) -> str:
    return check_id(text, "coordinator")


def _group_id(text: str) -> str:
    return check_id(text, "share_group")


class ClientSettings(BaseModel):
    """Where to find the site: for programs that send images or look at the fleet."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    site: Annotated[str, AfterValidator(_site_id)] = Field(default="home", description="name of the site")
    coordinator: Annotated[str, AfterValidator(_coordinator_id)] = Field(
        default="main", description="name of the coordinator, unique at its site"
    )
    broker: BrokerSettings = BrokerSettings()


class CoordinatorSettings(ClientSettings):
    """What a coordinator answers, and how long it waits."""

    deployment: Path | None = Field(default=None, description="deployment directory: manifest.json and its files")
    sources: Annotated[tuple[str, ...], AfterValidator(check_sources)] = Field(
        default=("+",), description="sources to answer, or + for all; no two coordinators may have one in common"
    )
    share_group: Annotated[str, AfterValidator(_group_id)] | None = Field(
        default=None, description="coordinators of one group have sources in common: each frame goes to one of them"
    )
    deadline_ms: float = Field(default=500.0, gt=0, le=60_000, description="longest wait for a frame's students")
    adaptive_deadline: bool = Field(
        default=True, description="learn the deadline of live sources from how long their frames take"
    )
    shortest_deadline_ms: float = Field(default=50.0, gt=0, le=60_000, description="least deadline of a live source")
    early_answer: float | None = Field(
        default=None, gt=0, le=1, description="probability from which some students' answer goes out early"
    )
    quorum: int = Field(default=1, ge=1, description="fewest students worth an answer")
    max_open_frames: int = Field(default=1024, ge=1, le=65_536, description="frames that may be in flight")
    assign: bool = Field(
        default=True, description="give students to devices set to auto; one coordinator of a site does"
    )
    away_s: float = Field(
        default=10.0, ge=0, le=86_400, description="seconds a device may be away before others take its students"
    )
    requests: bool = Field(default=True, description="answer request/classify; one coordinator of a site does")
    journal: Path | None = Field(
        default=None, description="file of frames in flight, so that a killed coordinator answers them when it is back"
    )
    updates: UpdateSettings = UpdateSettings()
    artifact_bytes_per_s: float = Field(
        default=1_000_000, ge=10_000, le=1e9, description="rate at which devices are sent new artifacts"
    )
    trial_s: float = Field(
        default=3.0, ge=0, le=3600, description="seconds that all students must answer before an update is final"
    )
    telemetry_s: float = Field(default=5.0, gt=0, le=3600, description="seconds between telemetry messages")
    log_format: Literal["text", "json"] = Field(default="text", description="text or JSON lines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level logged")
    dashboard: DashboardSettings = DashboardSettings()
    home_assistant: HomeAssistantSettings = HomeAssistantSettings()
