"""The card's file as text: the commented template of a fresh image, and what is left once it was applied."""

import json
from dataclasses import asdict

from edge_agent.protocol.device_card import APPLIED
from firmware_images.first_boot.card_settings import CardSettings

TEMPLATE = """\
# NoNN Edge: what this device is. Fill in, save, put the card into the Pi. Everything that is not asked for stays off.
# Trouble is written beside this file, as nonn-edge-error.txt. The device takes the secrets and wipes them here.

[device]
name = ""                  # such as pi-kitchen: letters a-z, digits and -; also its name on the network, NAME.local
site = "home"
student = 0                # which student this device runs; [0, 2] several, "auto" as assigned, "none" camera only

[role]
name = "{role}"             # agent, coordinator or both

[broker]
host = "coordinator.local"
#port = 8883
# Written by `nonn-coordinator device add NAME`: the authority, this device's certificate and its key.
#ca = \"\"\"-----BEGIN CERTIFICATE----- ...\"\"\"
#cert = \"\"\"-----BEGIN CERTIFICATE----- ...\"\"\"
#key = \"\"\"-----BEGIN PRIVATE KEY----- ...\"\"\"
#insecure = true           # without the three above: anybody on the network may read and answer

#[wifi]
#ssid = ""
#psk = ""
#country = "DE"

#[camera]
#kind = "v4l2"             # none, v4l2 (USB) or picamera2 (CSI, on Raspberry Pi OS)
#device = "/dev/video0"    # for v4l2
#source = "door"           # what its images are called [the device's name]
#frames_per_s = 5

#[updates]                 # public keys whose new students this device takes over the network
#trusted_keys = \"\"\"ed25519 AAAA...= release\"\"\"

#[time]
#zone = "Europe/Berlin"

#[ssh]
#authorized_key = "ssh-ed25519 AAAA... me@laptop"
"""


def card_template(role: str) -> str:
    """Return the file that a fresh image carries."""
    return TEMPLATE.format(role=role)


def wiped_card(settings: CardSettings, size_bytes: int) -> bytes:
    """Return the card's settings without secrets, at least `size_bytes` long so that nothing of the old text stays."""
    text = (
        f'# Applied. "{APPLIED}" keeps a secret that the device has taken; to change something, edit and restart.\n'
        + "".join(f"\n[{name}]\n" + _lines(values) for name, values in _tables(settings).items() if values)
    ).encode()
    return text + b"\n" * max(0, size_bytes - len(text))


def _tables(settings: CardSettings) -> dict[str, dict[str, object]]:
    broker, server, wifi, camera = settings.broker, settings.server, settings.wifi, settings.camera
    identity = {"ca": broker.ca, "cert": broker.cert, "key": APPLIED} if broker.tls else {}
    insecure = {"insecure": True} if broker.insecure else {}
    return {
        "device": {"name": settings.name, "site": settings.site, **_student_line(settings)},
        "role": {"name": settings.role},
        "broker": {"host": broker.host, "port": broker.port, **identity, **insecure},
        "broker_server": {**asdict(server), "key": APPLIED} if server else {},
        "wifi": {**asdict(wifi), "psk": APPLIED} if wifi else {},
        "camera": {key: value for key, value in asdict(camera).items() if value != ""} if camera else {},
        "updates": {"trusted_keys": settings.trusted_keys} if settings.trusted_keys else {},
        "time": {"zone": settings.zone},
        "ssh": {"authorized_key": settings.authorized_key} if settings.authorized_key else {},
    }


def _student_line(settings: CardSettings) -> dict[str, object]:
    students = settings.students
    if isinstance(students, str):
        return {"student": students}
    if students:
        return {"student": students[0] if len(students) == 1 else list(students)}
    return {} if settings.role == "coordinator" else {"student": "none"}


def _lines(values: dict[str, object]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: object) -> str:
    if isinstance(value, str) and "\n" in value:
        return '"""\n' + value.replace("\\", "\\\\").replace('"', '\\"') + '"""'
    # JSON's strings, numbers, lists and booleans are TOML's; DEL is the one character that TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
