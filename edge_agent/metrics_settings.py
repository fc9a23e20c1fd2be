"""Settings of the agent's /metrics."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class MetricsSettings(BaseModel):
    """Where Prometheus may ask."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None, description="TCP port of /metrics, 0 for a free one; unset: none"
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="address of /metrics; it has no secrets")
