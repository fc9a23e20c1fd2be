"""Settings of the dashboard."""

import ipaddress
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

SHORTEST_TOKEN = 16


def _long_enough(token: SecretStr) -> SecretStr:
    if len(token.get_secret_value()) < SHORTEST_TOKEN:
        raise ValueError(f"expected {SHORTEST_TOKEN} characters or more, such as `openssl rand -hex 16` prints")
    return token


class DashboardSettings(BaseModel):
    """Where the dashboard and /metrics listen, and for whom."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None, description="TCP port of dashboard and /metrics, 0 for a free one; unset: no web server"
    )
    host: str = Field(
        default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for all, which needs a token"
    )
    token: Annotated[SecretStr, AfterValidator(_long_enough)] | None = Field(
        default=None, description=f"what people log in with, {SHORTEST_TOKEN} characters or more; better in a file"
    )
    read_only: bool = Field(default=False, description="show only: no images to classify, no updates")
    metrics_open: bool = Field(default=False, description="answer /metrics without a token")

    @model_validator(mode="after")
    def _strangers_need_a_token(self) -> Self:
        if self.port is not None and self.token is None and not self.on_loopback:
            raise ValueError(
                f"expected a token, because {self.host} is not loopback; `openssl rand -hex 16` prints one"
            )
        return self

    @property
    def on_loopback(self) -> bool:
        """Only programs of this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
