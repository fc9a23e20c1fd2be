"""What stands on a device's card, nonn-edge.toml: the form that the first boot of the images reads. Pure."""

import re
from dataclasses import dataclass

from coordinator.provisioning.ledger import Identity, Kind, Ledger
from coordinator.provisioning.toml_text import toml_text

CARD_FILE = "nonn-edge.toml"
# In a secret's place: the device has taken it and keeps it.
APPLIED = "(applied)"
_COUNTRY = re.compile(r"[A-Z]{2}")
Tables = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Wifi:
    """One wireless network."""

    ssid: str
    psk: str
    country: str


@dataclass(frozen=True)
class CardWishes:
    """What the operator wants of a device, besides belonging to the site."""

    students: str | tuple[int, ...] = "auto"  # "none": camera only
    camera: str | None = None
    camera_device: str = "/dev/video0"
    source: str | None = None
    frames_per_s: float = 5.0
    wifi: Wifi | None = None
    zone: str = ""
    ssh_key: str = ""


@dataclass(frozen=True)
class BrokerFiles:
    """What a device needs to be the site's broker."""

    cert: str
    key: str
    acl: str
    crl: str


def check_wifi(wifi: Wifi) -> str:
    """What is wrong with a network, or ''."""
    if not 1 <= len(wifi.ssid.encode()) <= 32 or not wifi.ssid.isprintable():
        return "wifi: the name has 1 to 32 bytes of printable text"
    if not (8 <= len(wifi.psk) <= 63 and wifi.psk.isascii() and wifi.psk.isprintable()):
        return "wifi: the password has 8 to 63 plain characters"
    return "" if _COUNTRY.fullmatch(wifi.country) else "wifi: the country is a code such as DE: it decides the channels"


def card_tables(name: str, kind: Kind, ledger: Ledger, wishes: CardWishes) -> Tables:
    """The card without keys and passwords, as the ledger keeps it."""
    students = wishes.students
    device: dict[str, object] = {"name": name, "site": ledger.site}
    if kind != "coordinator":
        device["student"] = students if isinstance(students, str) else list(students)
    # Broker and programs of a coordinator's card are one machine.
    host = ledger.broker_host if kind == "agent" else "127.0.0.1"
    tables: Tables = {"device": device, "role": {"name": kind}, "broker": {"host": host, "port": ledger.broker_port}}
    if wishes.wifi is not None:
        tables["wifi"] = {"ssid": wishes.wifi.ssid, "psk": APPLIED, "country": wishes.wifi.country}
    if wishes.camera is not None:
        camera: dict[str, object] = {"kind": wishes.camera, "frames_per_s": wishes.frames_per_s}
        if wishes.camera == "v4l2":
            camera["device"] = wishes.camera_device
        tables["camera"] = camera | ({"source": wishes.source} if wishes.source else {})
    if wishes.zone:
        tables["time"] = {"zone": wishes.zone}
    if wishes.ssh_key:
        tables["ssh"] = {"authorized_key": wishes.ssh_key}
    return tables


def card_text(
    identity: Identity, ca: str, certificate: str, key: str, trusted_keys: str, server: BrokerFiles | None,
    wifi_psk: str = APPLIED,
) -> str:  # fmt: skip
    """The whole card. `key` and `wifi_psk` may say APPLIED on a card for a device that has taken them."""
    tables: Tables = {name: dict(values) for name, values in identity.card.items()}
    tables["broker"] |= {"ca": ca, "cert": certificate, "key": key}
    if server is not None:
        tables["broker_server"] = {"cert": server.cert, "key": server.key, "acl": server.acl, "crl": server.crl}
    tables["updates"] = {"trusted_keys": trusted_keys}
    if "wifi" in tables:
        tables["wifi"]["psk"] = wifi_psk
    head = (
        f"# NoNN Edge: device {identity.name}. Put this file onto the card's boot partition as {CARD_FILE}.\n"
        "# The device takes the secrets at its first start and wipes them there.\n"
        "# Then delete this copy: it holds the device's private key.\n\n"
    )
    return head + toml_text(tables)
