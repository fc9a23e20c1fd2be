"""What a device says of its update (`node/<device>/update`), as much of it as dashboard and status show. Pure."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edge_agent.protocol.errors import DecodeError

MAX_BYTES = 4096


class UpdateView(BaseModel):
    """`installed` and `target` are deployment ids; `progress` runs from 0 to 1."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    state: str = Field(max_length=40)
    progress: float | None = None
    installed: str | None = Field(default=None, max_length=200)
    target: str | None = Field(default=None, max_length=200)
    error: str | None = Field(default=None, max_length=1000)

    @field_validator("progress", mode="after")
    @classmethod
    def _fraction(cls, progress: float | None) -> float | None:
        return None if progress is None else min(1.0, max(0.0, progress))

    @property
    def text(self) -> str:
        """In a few words, for a table cell."""
        share = f" {self.progress:.0%}" if self.progress is not None and self.state == "downloading" else ""
        return f"{self.state}{share}" + (f": {self.error}" if self.error else "")

    def to_json(self) -> dict[str, Any]:
        """For the dashboard."""
        return self.model_dump()


def decode_update_view(payload: bytes) -> UpdateView:
    """Read an update state; DecodeError names the field."""
    if len(payload) > MAX_BYTES:
        raise DecodeError(f"update: {len(payload)} bytes, expected at most {MAX_BYTES}")
    try:
        return UpdateView.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DecodeError(f"update: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
