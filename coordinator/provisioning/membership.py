"""Taking devices and people into a site, renewing them, and putting them out again."""

import tomllib
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from coordinator.provisioning.authority import IDENTITY_DAYS
from coordinator.provisioning.card import CardWishes, card_tables, card_text
from coordinator.provisioning.ledger import Identity, Kind
from coordinator.provisioning.site_folder import PRIVATE, SiteFolder, certificate_of, write
from edge_agent.console.exit_codes import UserError
from edge_agent.protocol.device_card import APPLIED, CARD_FILE

WITH_CARD = ("agent", "coordinator", "both")


def add_member(
    site: SiteFolder, name: str, kind: Kind, wishes: CardWishes, out: Path | None, now: datetime,
    days: float = IDENTITY_DAYS,
) -> Path:  # fmt: skip
    """Give `name` a certificate; the path of its card, or of its settings. It is written first."""
    if any(identity.name == name for identity in site.ledger.identities):
        raise UserError(f"{name}: is a member of site {site.ledger.site} already; see device list, device renew")
    if wishes.wifi is not None and (problems := wishes.wifi.problems()):
        raise UserError("; ".join(problems))
    source = (wishes.source or name) if wishes.camera and kind != "coordinator" else None
    _check_source(site, source)
    issued = site.issue(name, kind, now, days)
    tables = card_tables(name, kind, site.ledger, wishes) if kind in WITH_CARD else {}
    identity = Identity(name=name, kind=kind, source=source, card=tables, certificates=(certificate_of(issued),))
    if kind not in WITH_CARD:
        path = site.write_member(name, issued)
        site.record(identity, issued)
        return path
    psk = wishes.wifi.psk if wishes.wifi else APPLIED
    path = _card_path(site, name, out)
    # A card that makes its device the broker carries the rules that hold with this very member.
    before = site.ledger
    site.ledger = before.with_identity(identity)
    try:
        site.write_access()
        _write_card(site, identity, issued.certificate, issued.key, path, psk)
    except BaseException:
        site.ledger = before
        raise
    site.record(identity, issued)
    return path


def renew_member(site: SiteFolder, name: str, out: Path | None, now: datetime, days: float = IDENTITY_DAYS) -> Path:
    """A new key and certificate; the old one counts until it runs out, so that nobody is cut off meanwhile."""
    identity = site.ledger.find(name)
    issued = site.issue(name, identity.kind, now, days)
    renewed = identity.model_copy(update={"certificates": (*identity.certificates, certificate_of(issued))})
    site.record(renewed, issued)
    if identity.kind == "broker":
        site.write_broker(issued)
        return site.path / "broker/server.pem"
    if not identity.card:
        return site.write_member(name, issued)
    path = _card_path(site, name, out)
    _write_card(site, renewed, issued.certificate, issued.key, path, APPLIED)
    return path


def revoke_member(site: SiteFolder, name: str, now: datetime) -> None:
    """No certificate of `name` counts any more, once the broker has read its files again."""
    identity = site.ledger.find(name)
    if identity.kind == "broker":
        raise UserError(f"{name}: devices do not look at the revocation list; renew it, and keep its old key safe")
    if identity.revoked:
        return
    certificates = tuple(
        certificate if certificate.revoked else certificate.model_copy(update={"revoked": now})
        for certificate in identity.certificates
    )
    ledger = site.ledger.with_identity(identity.model_copy(update={"certificates": certificates}))
    site.store(ledger.model_copy(update={"revocations": ledger.revocations + 1}))


def broker_cards(site: SiteFolder, new_server_key: bool = False) -> list[Path]:
    """Write the cards of devices that are the broker again, with today's rules; secrets stay as they were on them."""
    paths = []
    for identity in site.ledger.identities:
        if "broker" in identity.card and identity.kind in ("coordinator", "both") and not identity.revoked:
            path = site.path / f"cards/{identity.name}/{CARD_FILE}"
            key, psk = _secrets_of(path)
            certificate = site.text(f"certificates/{identity.name}.pem")
            _write_card(site, identity, certificate, key, path, psk, new_server_key)
            paths.append(path)
    return paths


def _check_source(site: SiteFolder, source: str | None) -> None:
    for identity in site.ledger.identities:
        if source is not None and identity.source == source:
            raise UserError(f"source {source}: is {identity.name}'s already; expected another name for this camera")


def _card_path(site: SiteFolder, name: str, out: Path | None) -> Path:
    path = out or site.path / f"cards/{name}/{CARD_FILE}"
    if out is not None and out.is_dir():
        path = out / CARD_FILE
    if out is not None and path.exists() and b"-----BEGIN" in path.read_bytes():
        raise UserError(f"{path}: is the card of a device already; delete it first")
    return path


def _secrets_of(card: Path) -> tuple[str, str]:
    """Key and password on a card that may not have been to its device yet."""
    try:
        tables = tomllib.loads(card.read_text(encoding="utf-8"))
        return tables["broker"]["key"], tables.get("wifi", {}).get("psk", APPLIED)
    except (OSError, ValueError, KeyError, RecursionError):
        return APPLIED, APPLIED


def _write_card(
    site: SiteFolder, identity: Identity, certificate: str, key: str, path: Path, psk: str,
    new_server_key: bool = False,
) -> None:  # fmt: skip
    server = site.broker_server() if identity.kind in ("coordinator", "both") else None
    if server is not None and key == APPLIED and not new_server_key:
        server = replace(server, key=APPLIED)
    text = card_text(
        identity, site.text("authority/ca.pem"), certificate, key, site.text("keys/trusted-keys"), server, psk
    )
    try:
        write(path, text, PRIVATE)
    except PermissionError:
        path.write_text(text)  # a FAT partition has no modes; the first boot checks what it reads
