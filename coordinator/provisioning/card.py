"""What stands on a device's card, nonn-edge.toml: the form that the first boot of the images reads. Pure."""

from dataclasses import asdict, dataclass

from coordinator.provisioning.ledger import Identity, Kind, Ledger
from coordinator.provisioning.toml_text import toml_text
from edge_agent.protocol.device_card import APPLIED, CARD_FILE, BrokerServer, Wifi

Tables = dict[str, dict[str, object]]


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
    identity: Identity, ca: str, certificate: str, key: str, trusted_keys: str, server: BrokerServer | None,
    wifi_psk: str = APPLIED,
) -> str:  # fmt: skip
    """The whole card. `key` and `wifi_psk` may say APPLIED on a card for a device that has taken them."""
    tables: Tables = {name: dict(values) for name, values in identity.card.items()}
    tables["broker"] |= {"ca": ca, "cert": certificate, "key": key}
    if server is not None:
        tables["broker_server"] = asdict(server)
    tables["updates"] = {"trusted_keys": trusted_keys}
    if "wifi" in tables:
        tables["wifi"]["psk"] = wifi_psk
    head = (
        f"# NoNN Edge: device {identity.name}. Put this file onto the card's boot partition as {CARD_FILE}.\n"
        "# The device takes the secrets at its first start and wipes them there.\n"
        "# Then delete this copy: it holds the device's private key.\n\n"
    )
    return head + toml_text(tables)
