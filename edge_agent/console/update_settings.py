"""Settings of programs that take signed updates, and the trust that they describe."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from edge_agent import __version__
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.broker import is_loopback
from edge_agent.protocol.signature import TrustedKeys
from edge_agent.protocol.update_trust import TrustPolicy


class UpdateSettings(BaseModel):
    """Where deployments are kept and whose signature counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    store: Path | None = Field(default=None, description="folder for deployments that come over MQTT: turns updates on")
    trusted_keys: Path | None = Field(
        default=None, description="file of public keys whose signature an update needs, as bundle keygen writes it"
    )
    allow_unsigned: bool = Field(
        default=False, description="take updates that nobody signed; only with a broker on this machine"
    )
    disk_budget_mb: float | None = Field(
        default=None, gt=0, le=1e9, description="most that the store may take [the disk]"
    )


def trust_policy(trusted_keys: Path | None, allow_unsigned: bool, broker_host: str) -> TrustPolicy:
    """Whose updates are taken; UserError (78) for settings that would take anybody's."""
    if trusted_keys is not None:
        return TrustPolicy(read_trusted_keys(trusted_keys), __version__)
    if not allow_unsigned:
        message = "updates.trusted_keys: expected a file of public keys, since updates.store is set"
        raise UserError(message, ExitCode.CONFIGURATION)
    if not is_loopback(broker_host):
        here = f"expected a broker on this machine, not {broker_host}"
        message = f"updates.allow_unsigned: {here}; set updates.trusted_keys instead"
        raise UserError(message, ExitCode.CONFIGURATION)
    return TrustPolicy(None, __version__)


def read_trusted_keys(path: Path) -> TrustedKeys:
    """Read a file of public keys; UserError (78) names the line."""
    try:
        return TrustedKeys.from_text(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a file of public keys", ExitCode.CONFIGURATION) from None
    except ValueError as error:
        raise UserError(f"{path}: {error}", ExitCode.CONFIGURATION) from None
