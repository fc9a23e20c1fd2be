"""Where the broker is and how to log in: the settings that the three programs share."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Port = Annotated[int, Field(ge=1, le=65535)]


class BrokerSettings(BaseModel):
    """The MQTT broker of the site."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    host: str = Field(default="127.0.0.1", min_length=1, description="name or address of the MQTT broker")
    port: Port = Field(default=1883, description="TCP port of the broker (8883 with TLS)")
    username: str | None = Field(default=None, description="login name, if the broker asks for one")
    password: SecretStr | None = Field(default=None, description="password; better in the environment than in a flag")
    ca_file: Path | None = Field(
        default=None, description="PEM file of the authority that signed the broker: turns TLS on"
    )
    certificate_file: Path | None = Field(default=None, description="PEM file of this device's own certificate")
    key_file: Path | None = Field(default=None, description="PEM file of this device's private key")
    insecure: bool = Field(
        default=False,
        description="use a broker elsewhere without TLS: anybody on that network may read and answer",
        json_schema_extra={"switch": "--insecure"},
    )
    keepalive_s: int = Field(default=10, ge=2, le=600, description="seconds of silence before a ping")
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        default="auto", description="MQTT version: 5 where the broker speaks it, else 3.1.1"
    )
    client: Literal["own", "paho"] = Field(
        default="own", description="MQTT client: our own, or paho-mqtt, which takes longer for each message"
    )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file: expected both or neither")
        if self.certificate_file is not None and self.ca_file is None:
            raise ValueError("certificate_file: expected a ca_file with it")
        if self.is_exposed and not self.insecure:
            raise ValueError(
                f"{self.host} without TLS: expected ca_file, certificate_file and key_file, as nonn-coordinator "
                "device add writes them, or --insecure where anybody on that network may read and answer"
            )
        return self

    @property
    def is_exposed(self) -> bool:
        """Whether what is said to the broker leaves this machine unencrypted."""
        return self.ca_file is None and not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("broker.local")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
