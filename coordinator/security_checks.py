"""The doctor's look at encryption, certificates and refused logins: facts -> findings. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from coordinator.doctor_checks import Finding
from coordinator.roster import Device
from coordinator.tls_probe import TlsFacts
from edge_agent.protocol.broker import BrokerSettings

RENEW_BEFORE = timedelta(days=60)  # as coordinator.provisioning.ledger: a test holds them together
INSECURE = "insecure"  # findings of this check are shown in red, whatever their level
_REFUSED_LOGINS = (
    ("wrong version number", "plain logins on the TLS port"),
    ("http request", "plain logins on the TLS port"),
    ("peer did not return a certificate", "logins without a certificate"),
    ("certificate verify failed", "certificates refused: run out, revoked, or of another authority"),
    ("unknown ca", "clients that do not trust this broker: they have another authority's ca_file"),
    ("unsupported protocol", "logins with a TLS version that is too old"),
    ("not authorised", "logins refused"),
)
_TAKEOVER = re.compile(r"Client (\S+) already connected, closing old connection")


def check_encryption(settings: BrokerSettings, devices: Iterable[Device]) -> list[Finding]:
    """Whether anybody's messages travel in the open; only --insecure lets them."""
    found = []
    step = "nonn-coordinator init and device add make certificates: docs/install.md"
    if settings.is_exposed:
        text = f"plain MQTT to {settings.host}: whoever is on the network can read and answer"
        found.append(Finding("WARN", INSECURE, text, step))
    names = [device.name for device in devices if device.online and device.info and device.info.insecure]
    if names:
        text = f"{', '.join(names)}: connected without TLS over the network"
        found.append(Finding("WARN", INSECURE, text, step))
    return found


def check_tls(settings: BrokerSettings, facts: TlsFacts, connected: bool, now: datetime) -> list[Finding]:
    """What the handshake showed, our certificate and the broker's."""
    if settings.ca_file is None:
        if facts.speaks_tls and not connected:
            step = "set broker.ca_file, certificate_file and key_file: nonn-coordinator device add NAME writes them"
            return [
                Finding("FAIL", "tls", f"{settings.host}:{settings.port} wants TLS; plain logins are refused", step)
            ]
        return []
    found = []
    if facts.trouble:
        found.append(Finding("FAIL", "tls", facts.trouble, _step(facts.trouble)))
    found += _own_certificate(facts, now)
    if facts.broker_until is not None:
        found.append(_validity("the broker's certificate", facts.broker_until, now, "broker"))
    return found


def check_device_certificates(devices: Sequence[Device], now: datetime) -> list[Finding]:
    """Devices say until when theirs count."""
    found = []
    for device in devices:
        until = device.info.certificate_until if device.info else None
        if until is not None and until - now < RENEW_BEFORE:
            found.append(_validity(f"{device.name}'s certificate", until, now, device.name))
    return found


def check_broker_log(lines: Iterable[str]) -> list[Finding]:
    """Logins that the broker refused, and clients that ended each other's connections."""
    refused: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for line in lines:
        lower = line.lower()
        refused.update(text for words, text in _REFUSED_LOGINS if words in lower)
        if match := _TAKEOVER.search(line):
            taken[match[1]] += 1
    step = "its log says when and, for plain logins, from where; a device of yours says why in its own log"
    found = [Finding("WARN", "refused", f"{count} {text}", step) for text, count in refused.most_common()]
    found += [
        Finding("WARN", "refused", f"two programs log in as {name}: {count} connections ended", "rename one")
        for name, count in taken.most_common(5)
        if count > 1  # one is a program that came back before the broker missed it
    ]
    return found or [Finding("OK", "refused", "no refused login in the broker's log")]


def _own_certificate(facts: TlsFacts, now: datetime) -> list[Finding]:
    if facts.own_from is None or facts.own_until is None:
        return []
    if now < facts.own_from:
        text = f"this machine's clock shows {now:%Y-%m-%d}; its certificate counts from {facts.own_from:%Y-%m-%d}"
        return [Finding("FAIL", "clock", text, "timedatectl set-ntp true; wait until it is synchronised")]
    return [_validity("this machine's certificate", facts.own_until, now, "NAME")]


def _validity(whose: str, until: datetime, now: datetime, name: str) -> Finding:
    step = f"nonn-coordinator device renew {name}"
    if until <= now:
        return Finding("FAIL", "certificate", f"{whose} ran out on {until:%Y-%m-%d}", step)
    if until - now < RENEW_BEFORE:
        days = (until - now).days
        return Finding("WARN", "certificate", f"{whose} runs out on {until:%Y-%m-%d}, in {days} days", step)
    return Finding("OK", "certificate", f"{whose} counts until {until:%Y-%m-%d}")


def _step(trouble: str) -> str:
    if "revoked" in trouble:
        return "if that was a mistake: nonn-coordinator device renew NAME, then its new card"
    if "ran out" in trouble:
        return "nonn-coordinator device renew NAME, then its new card; for the broker: renew broker, reload it"
    if "authority" in trouble or "ca_file" in trouble:
        return "take ca_file, certificate_file and key_file from the site of this very broker"
    if "other names" in trouble:
        return "connect by a name that is in it, or make the site with --broker-name"
    return "look at the broker's log"
