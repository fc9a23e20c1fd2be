"""The card's settings, nonn-edge.toml: text in, checked values or plain problems out. Pure."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.protocol.device_card import ROLES, BrokerServer, Wifi
from edge_agent.protocol.topics import MAX_STUDENTS
from firmware_images.first_boot.card_reader import CardProblemsError, CardReader

CAMERAS = ("none", "v4l2", "picamera2")
AUTO = "auto"

_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")
_SSH_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-\S+|sk-\S+) [A-Za-z0-9+/=]+( [^\r\n]*)?")
_DEVICE_PATH = re.compile(r"/dev/[A-Za-z0-9/_.:-]+")
# A line of `nonn-trainer bundle keygen`: 32 bytes in base64; whether the point is on the curve is the agent's to say.
_PUBLIC_KEY = re.compile(r"ed25519 [A-Za-z0-9+/]{43}=( [^\r\n]*)?")
_LOOPBACK = ("127.", "localhost", "::1")


@dataclass(frozen=True)
class Broker:
    """Where the broker is, and who this device is to it."""

    host: str
    port: int
    ca: str
    cert: str
    key: str
    insecure: bool

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted and both ends prove who they are."""
        return bool(self.ca)


@dataclass(frozen=True)
class Camera:
    """What this device publishes as a source of images."""

    kind: str
    device: str
    source: str
    frames_per_s: float


@dataclass(frozen=True)
class CardSettings:
    """Everything that a card may say; empty strings stand for "not asked for"."""

    name: str
    site: str
    students: tuple[int, ...] | str  # or AUTO: as the coordinator assigns them
    role: str
    broker: Broker
    wifi: Wifi | None
    server: BrokerServer | None
    camera: Camera | None
    zone: str
    authorized_key: str
    trusted_keys: str = ""  # lines of public keys whose updates are taken; none: no updates

    @property
    def runs_agent(self) -> bool:
        """Whether the device answers frames or takes pictures."""
        return self.role in ("agent", "both")

    @property
    def runs_coordinator(self) -> bool:
        """Whether the device merges, and is the site's broker."""
        return self.role in ("coordinator", "both")


@dataclass(frozen=True)
class Places:
    """What this system knows about the world."""

    is_country: Callable[[str], bool]
    is_zone: Callable[[str], bool]


def parse_card(content: bytes, places: Places) -> CardSettings:
    """Check a card's bytes; CardProblemsError lists everything that a person has to mend."""
    try:
        document = tomllib.loads(content.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise CardProblemsError(["the file is not UTF-8 text; save it as UTF-8"]) from error
    except tomllib.TOMLDecodeError as error:
        raise CardProblemsError([f"not valid TOML: {error}"]) from error
    except RecursionError as error:
        raise CardProblemsError(["not valid TOML: too many brackets within brackets"]) from error
    reader = CardReader(document)
    role = reader.choice("role", "name", ROLES, "agent")
    settings = CardSettings(
        name=reader.text("device", "name", None, "letters a-z, digits and -, such as pi-kitchen", _ID),
        site=reader.text("device", "site", "home", "letters a-z, digits and -", _ID),
        students=_students(reader, role),
        role=role,
        broker=_broker(reader, role),
        wifi=_wifi(reader, places),
        server=_server(reader, role),
        camera=_camera(reader),
        zone=_zone(reader, places),
        authorized_key=reader.text("ssh", "authorized_key", "", "one line such as ssh-ed25519 AAAA... me", _SSH_KEY),
        trusted_keys=_trusted_keys(reader),
    )
    if settings.server is not None and not settings.broker.tls:
        reader.problems.append("[broker_server]: expected ca, cert and key in [broker] too")
    if role != "coordinator" and settings.students == () and settings.camera is None and not reader.problems:
        reader.problems.append('[device] student = "none" and no [camera]: this device would have nothing to do')
    reader.unknown()
    if reader.problems:
        raise CardProblemsError(reader.problems)
    return settings


def name_and_broker(content: bytes) -> tuple[str, str, Broker] | None:
    """Return name, site and broker of a card that may be wrong elsewhere: whom to tell about the rest, and as whom."""
    try:
        reader = CardReader(tomllib.loads(content.decode("utf-8-sig").replace("\r\n", "\n")))
    except (ValueError, RecursionError):
        return None
    name = reader.text("device", "name", None, "", _ID)
    site = reader.text("device", "site", "home", "", _ID)
    broker = _broker(reader, "agent")
    return None if reader.problems else (name, site, broker)


def _trusted_keys(reader: CardReader) -> str:
    text = reader.text("updates", "trusted_keys", "", "the lines of .pub files (nonn-trainer bundle keygen)", None)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if not _PUBLIC_KEY.fullmatch(line):
            reader.problems.append(
                f'[updates] trusted_keys: "{line[:60]}" is no public key; expected lines such as ed25519 AAAA...= name'
            )
    return "".join(line + "\n" for line in lines)


def _students(reader: CardReader, role: str) -> tuple[int, ...] | str:
    value = reader.raw("device", "student", None)
    expected = 'the index of this device\'s student, such as 0, a list such as [0, 2], "auto" or "none"'
    if value is None:
        if role != "coordinator":
            reader.problems.append(f"[device] student: missing; expected {expected}")
        return ()
    if value == AUTO:
        return AUTO
    if value == "none":
        return ()
    indices = value if isinstance(value, list) else [value]
    legal = indices and all(type(index) is int and 0 <= index < MAX_STUDENTS for index in indices)
    if not legal or len(set(indices)) != len(indices):
        reader.problems.append(f"[device] student = {value!r}: expected {expected}, below {MAX_STUDENTS}")
        return ()
    return tuple(indices)


def _broker(reader: CardReader, role: str) -> Broker:
    own = "127.0.0.1" if role != "agent" else None
    host = reader.text("broker", "host", own, "the broker's name or address, such as coordinator.local", _HOST)
    ca = reader.pem("broker", "ca", "CERTIFICATE")
    cert = reader.pem("broker", "cert", "CERTIFICATE")
    key = reader.pem("broker", "key", "")
    port = reader.raw("broker", "port", 8883 if ca else 1883)
    if type(port) is not int or not 1 <= port <= 65535:
        reader.problems.append(f"[broker] port = {port!r}: expected a number from 1 to 65535")
        port = 0
    insecure = reader.raw("broker", "insecure", False)
    if insecure not in (True, False):
        reader.problems.append(f"[broker] insecure = {insecure!r}: expected true or false")
    given = [name for name, value in (("ca", ca), ("cert", cert), ("key", key)) if value]
    if given and len(given) < 3:
        reader.problems.append(f"[broker]: {', '.join(given)} without the rest; expected ca, cert and key")
    if not given and host and insecure is not True and not host.startswith(_LOOPBACK):
        reader.problems.append(
            f"[broker]: no ca, cert and key for {host}; add them (nonn-coordinator device add), "
            "or say insecure = true if anybody on this network may read and answer"
        )
    return Broker(host, int(port), ca, cert, key, insecure is True)


def _server(reader: CardReader, role: str) -> BrokerServer | None:
    cert = reader.pem("broker_server", "cert", "CERTIFICATE")
    key = reader.pem("broker_server", "key", "")
    acl = reader.text("broker_server", "acl", "", "the access rules that nonn-coordinator init wrote", None)
    crl = reader.pem("broker_server", "crl", "X509 CRL")
    given = (cert, key, acl, crl)
    if not any(given):
        return None
    if not all(given):
        reader.problems.append("[broker_server]: expected cert, key, acl and crl, or none of them")
    if role == "agent":
        reader.problems.append('[broker_server]: only role "coordinator" or "both" runs a broker')
    return BrokerServer(cert, key, acl, crl)


def _wifi(reader: CardReader, places: Places) -> Wifi | None:
    given = {key: reader.text("wifi", key, "", "text in quotes", None) for key in ("ssid", "psk", "country")}
    if not any(given.values()):
        return None
    wifi = Wifi(**given)
    problems = wifi.problems()
    reader.problems += problems
    if not problems and not places.is_country(wifi.country):
        expected = "expected an ISO 3166 code such as DE"
        reader.problems.append(f'[wifi] country = "{wifi.country}": no such country; {expected}')
    return wifi


def _camera(reader: CardReader) -> Camera | None:
    kind = reader.choice("camera", "kind", CAMERAS, "none")
    device = reader.text("camera", "device", "/dev/video0", "a path such as /dev/video0", _DEVICE_PATH)
    # Its own name unless the card says another: one camera, one source.
    source = reader.text("camera", "source", "", "letters a-z, digits and -, such as door", _ID)
    rate = reader.raw("camera", "frames_per_s", 5)
    if type(rate) not in (int, float) or not 0 < rate <= 240:  # type: ignore[operator]
        reader.problems.append(f"[camera] frames_per_s = {rate!r}: expected a number above 0, at most 240")
        return None
    return Camera(kind, device, source, float(rate)) if kind != "none" else None  # type: ignore[arg-type]


def _zone(reader: CardReader, places: Places) -> str:
    zone = reader.text("time", "zone", "UTC", "a time zone such as Europe/Berlin", None)
    if zone and not places.is_zone(zone):
        reader.problems.append(f'[time] zone = "{zone}": no such zone; expected one such as Europe/Berlin')
    return zone
