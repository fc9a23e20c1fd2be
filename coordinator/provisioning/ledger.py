"""Who was given a certificate, and until when it counts: site.json of a site's folder. No secret stands in it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from coordinator.provisioning.access_rules import Member, Role
from coordinator.provisioning.authority import Revoked
from edge_agent.console.exit_codes import ExitCode, UserError

LEDGER_FILE = "site.json"
# A card is a walk to the device: two months are enough for the slowest.
RENEW_BEFORE = timedelta(days=60)
Kind = Literal["agent", "coordinator", "both", "operator", "viewer", "broker"]
_Id = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
_ROLES: dict[Kind, tuple[Role, ...]] = {
    "agent": ("device",),
    "coordinator": ("coordinator",),
    "both": ("device", "coordinator"),
    "operator": ("operator",),
    "viewer": ("viewer",),
    "broker": (),
}


class Certificate(BaseModel):
    """One certificate that was issued."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    serial: str = Field(pattern=r"^[0-9a-f]{1,40}$", description="hexadecimal")
    expires: AwareDatetime
    revoked: AwareDatetime | None = None


class Identity(BaseModel):
    """A member of the site. `card`: the tables of its card without secrets, so that it can be written again."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: _Id
    kind: Kind
    source: _Id | None = Field(default=None, description="source that its camera publishes as")
    card: dict[str, dict[str, object]] = {}
    certificates: tuple[Certificate, ...] = Field(min_length=1)

    @property
    def expires(self) -> datetime:
        """When the last of its certificates runs out."""
        return max(certificate.expires for certificate in self.certificates)

    @property
    def revoked(self) -> bool:
        """Whether none of its certificates counts any more."""
        return all(certificate.revoked is not None for certificate in self.certificates)

    def state(self, now: datetime) -> Literal["valid", "renew", "expired", "revoked"]:
        """How its certificate stands."""
        if self.revoked:
            return "revoked"
        left = self.expires - now
        return "expired" if left <= timedelta(0) else "renew" if left < RENEW_BEFORE else "valid"

    @property
    def member(self) -> Member:
        """Its rights at the broker."""
        roles = _ROLES[self.kind] + (("camera",) if self.source else ())
        coordinator = "main" if "coordinator" in roles else ""
        return Member(self.name, roles, coordinator, (self.source,) if self.source else (), self.revoked)


class Ledger(BaseModel):
    """Everything that is not secret about a site's authority."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = Field(default=1, alias="schema")
    site: _Id
    broker_host: str
    broker_port: int = Field(ge=1, le=65535)
    broker_names: tuple[str, ...] = Field(description="names and addresses in the broker's certificate")
    broker_folder: str = Field(description="where the broker's files lie on the broker's machine")
    revocations: int = Field(default=0, ge=0, description="number of the last revocation list")
    identities: tuple[Identity, ...] = ()

    def find(self, name: str) -> Identity:
        """A member; UserError if there is none."""
        for identity in self.identities:
            if identity.name == name:
                return identity
        known = ", ".join(identity.name for identity in self.identities)
        raise UserError(f"{name}: no such member of site {self.site}; expected one of {known}")

    def with_identity(self, identity: Identity) -> "Ledger":
        """The same with a new or changed member."""
        by_name = {other.name: other for other in self.identities} | {identity.name: identity}
        return self.model_copy(update={"identities": tuple(by_name.values())})

    def members(self) -> list[Member]:
        """Those who need more than the patterns of a plain device."""
        members = [identity.member for identity in self.identities if identity.kind != "broker"]
        return [member for member in members if member.roles != ("device",) or member.revoked]

    def revoked(self) -> list[Revoked]:
        """Certificates that no longer count."""
        return [
            Revoked(int(certificate.serial, 16), certificate.revoked.astimezone(UTC))
            for identity in self.identities
            for certificate in identity.certificates
            if certificate.revoked is not None
        ]

    def to_bytes(self) -> bytes:
        """JSON for people and programs."""
        return (self.model_dump_json(by_alias=True, indent=2) + "\n").encode()


def read_ledger(folder: Path) -> Ledger:
    """Read site.json; UserError (78) says what is wrong with it."""
    path = folder / LEDGER_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{path}: {error.strerror}; expected a folder that nonn-coordinator init made"
        raise UserError(message, ExitCode.CONFIGURATION) from None
    return parse_ledger(content, str(path))


def parse_ledger(content: bytes, where: str) -> Ledger:
    """Check the bytes of a site.json; UserError (78) names the field."""
    try:
        return Ledger.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = f"{where}: {'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}"
        raise UserError(message, ExitCode.CONFIGURATION) from None
