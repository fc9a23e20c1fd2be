"""A site's folder on disk: made whole or not at all, changed one whole file after the other."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from coordinator.provisioning.access_rules import access_file
from coordinator.provisioning.authority import IDENTITY_DAYS, Authority, Issued
from coordinator.provisioning.broker_configuration import broker_configuration, standalone_configuration
from coordinator.provisioning.ledger import LEDGER_FILE, Certificate, Identity, Kind, Ledger, read_ledger
from coordinator.provisioning.toml_text import toml_text
from edge_agent.console.atomic_file import sync_folder, write_atomically
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.device_card import BrokerServer
from edge_agent.protocol.signature import SigningKey

BROKER, COORDINATOR, OPERATOR = "broker", "main", "operator"
PRIVATE = 0o600


class SiteFolder:
    """The files of one site; `ledger` is what site.json says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = read_ledger(path)

    @classmethod
    def create(cls, path: Path, ledger: Ledger, now: datetime, days: float = IDENTITY_DAYS) -> "SiteFolder":
        """Make everything beside `path`, then rename; UserError (78) if something is there."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            message = f"{path}: exists and is no site's folder; expected a new one: keys are never overwritten"
            raise UserError(message, ExitCode.CONFIGURATION)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        try:
            authority = Authority.create(ledger.site, now)
            write(part / "authority/ca.pem", authority.certificate)
            write(part / "authority/ca.key", authority.key, PRIVATE)
            _write_signing_key(part / "keys", ledger.site)
            write(part / LEDGER_FILE, ledger.to_bytes())
            folder = cls(part)
            folder._admit_founders(path.resolve(), authority, now, days)
            part.replace(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        sync_folder(path.parent)
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other programs from changing the folder meanwhile."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self.ledger = read_ledger(self.path)
            yield
        finally:
            os.close(descriptor)

    def authority(self) -> Authority:
        """The authority with its key; UserError (78) where they can't be used."""
        certificate, key = self.path / "authority/ca.pem", self.path / "authority/ca.key"
        try:
            return Authority.load(certificate.read_bytes(), key.read_bytes())
        except OSError as error:
            message = f"{error.filename}: {error.strerror}; expected the site's authority, as init wrote it"
            raise UserError(message, ExitCode.CONFIGURATION) from None
        except ValueError as error:
            raise UserError(f"{certificate} and {key}: {error}", ExitCode.CONFIGURATION) from None

    def issue(self, name: str, kind: Kind, now: datetime, days: float, authority: Authority | None = None) -> Issued:
        """A new certificate for a member; it counts for the tools once `record` has it."""
        authority = authority or self.authority()
        if kind == "broker":
            return authority.issue_server(name, self.ledger.broker_names, now, days)
        return authority.issue_client(name, now, days)

    def record(self, identity: Identity, issued: Issued) -> None:
        """Write down that a member has a certificate, and what that means at the broker."""
        write(self.path / f"certificates/{identity.name}.pem", issued.certificate)
        self.store(self.ledger.with_identity(identity))

    def store(self, ledger: Ledger) -> None:
        """Replace the ledger and the broker's files that follow from it."""
        self.ledger = ledger
        write(self.path / LEDGER_FILE, ledger.to_bytes())
        self.write_access()

    def write_access(self) -> None:
        """Access rules and revocation list, as the ledger has them."""
        ledger = self.ledger
        crl = self.authority().revocation_list(ledger.revoked(), ledger.revocations)
        # Newer brokers warn of rules that everybody can read, and say that they will refuse them.
        write(self.path / "broker/access", access_file(ledger.site, ledger.members()), PRIVATE)
        write(self.path / "broker/revoked.pem", crl)

    def write_member(self, name: str, issued: Issued, home: Path | None = None) -> Path:
        """Certificate, key and settings of a member that has no card; the settings file, as `home` will hold it."""
        folder = self.path / ("coordinator" if name == COORDINATOR else f"clients/{name}")
        place = (home or self.path.resolve()) / folder.relative_to(self.path)
        write(folder / "ca.pem", self.text("authority/ca.pem"))
        write(folder / f"{name}.pem", issued.certificate)
        write(folder / f"{name}.key", issued.key, PRIVATE)
        settings = folder / ("coordinator.toml" if name == COORDINATOR else f"{name}.toml")
        if not settings.exists():
            tables: dict[str, dict[str, object]] = {"": {"site": self.ledger.site}}
            if name == COORDINATOR:
                tables[""]["journal"] = str(place / "frames.journal")
                tables["updates"] = {"store": str(place / "updates"), "trusted_keys": str(place / "trusted-keys")}
                write(folder / "trusted-keys", self.text("keys/trusted-keys"))
            tables["broker"] = {
                "host": self.ledger.broker_host,
                "port": self.ledger.broker_port,
                "ca_file": str(place / "ca.pem"),
                "certificate_file": str(place / f"{name}.pem"),
                "key_file": str(place / f"{name}.key"),
            }
            write(settings, toml_text(tables))
        return settings

    def write_broker(self, issued: Issued) -> None:
        """The broker's own certificate and key."""
        write(self.path / "broker/server.pem", issued.certificate)
        write(self.path / "broker/server.key", issued.key, PRIVATE)

    def broker_server(self) -> BrokerServer:
        """What a card needs for a device to be the broker."""
        names = ("server.pem", "server.key", "access", "revoked.pem")
        return BrokerServer(*(self.text(f"broker/{name}") for name in names))

    def text(self, name: str) -> str:
        """A file of the folder."""
        return (self.path / name).read_text(encoding="utf-8")

    def _admit_founders(self, home: Path, authority: Authority, now: datetime, days: float) -> None:
        """Broker, coordinator and the operator who runs init. `home`: where the folder will be."""
        ledger = self.ledger
        place = Path(ledger.broker_folder)
        write(self.path / "broker/ca.pem", authority.certificate)
        write(self.path / "broker/nonn-edge.conf", broker_configuration(ledger.site, place, ledger.broker_port))
        standalone = standalone_configuration(ledger.site, place, ledger.broker_port, as_root=os.geteuid() == 0)
        write(self.path / "broker/mosquitto.conf", standalone)
        (self.path / "broker/state").mkdir()
        founders: tuple[tuple[str, Kind], ...] = (
            (BROKER, "broker"), (COORDINATOR, "coordinator"), (OPERATOR, "operator"),
        )  # fmt: skip
        for name, kind in founders:
            issued = self.issue(name, kind, now, days, authority)
            if kind == "broker":
                self.write_broker(issued)
            else:
                self.write_member(name, issued, home)
            self.record(Identity(name=name, kind=kind, certificates=(certificate_of(issued),)), issued)


def certificate_of(issued: Issued) -> Certificate:
    """What the ledger keeps of a certificate."""
    return Certificate(serial=f"{issued.serial:x}", expires=issued.expires)


def write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write a whole file, durable, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.encode() if isinstance(content, str) else content, mode)


def _write_signing_key(folder: Path, site: str) -> None:
    key = SigningKey.generate()
    public = f"{key.public(f'deployments of site {site}').to_line()}\n"
    write(folder / "deployment.key", key.to_pem(), PRIVATE)
    write(folder / "deployment.key.pub", public)
    write(folder / "trusted-keys", public)
