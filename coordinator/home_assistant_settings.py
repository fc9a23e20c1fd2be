"""Settings of the Home Assistant part."""

from pydantic import BaseModel, ConfigDict, Field


class HomeAssistantSettings(BaseModel):
    """MQTT discovery for Home Assistant."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    enabled: bool = Field(default=False, description="announce sources and devices by MQTT discovery")
    prefix: str = Field(default="homeassistant", pattern=r"^[a-z0-9_-]+$", description="discovery prefix")
    picture_s: float = Field(default=2.0, ge=0.2, le=3600, description="least seconds between two pictures of a source")
