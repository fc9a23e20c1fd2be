"""From checked settings to the files that make a device: paths, content, modes. Pure."""

import json
from dataclasses import dataclass
from pathlib import PurePath

from coordinator.provisioning.broker_configuration import broker_configuration, plain_configuration
from edge_agent.protocol.device_card import APPLIED, BrokerServer, Wifi
from firmware_images.first_boot.card_settings import Broker, CardSettings

TLS = "etc/nonn-edge/tls"
DEVICE_CERTIFICATE = f"{TLS}/device.pem"
AGENT_CONFIG = "etc/nonn-edge/agent.toml"
COORDINATOR_CONFIG = "etc/nonn-edge/coordinator.toml"
BROKER_CONFIG = "etc/mosquitto/conf.d/nonn-edge.conf"
BROKER_FILES = "etc/nonn-edge/broker"
WIFI_CONFIG = "etc/wpa_supplicant/wpa_supplicant-wlan0.conf"
AUTHORIZED_KEYS = "etc/ssh/authorized_keys.d/root"
TRUSTED_KEYS = "etc/nonn-edge/trusted-keys"
# Units start only where their file exists, so a file that the settings no longer ask for is removed.
OPTIONAL_PATHS = (
    AGENT_CONFIG, COORDINATOR_CONFIG, BROKER_CONFIG, WIFI_CONFIG, AUTHORIZED_KEYS, TRUSTED_KEYS,
    f"{TLS}/ca.pem", DEVICE_CERTIFICATE, f"{TLS}/device.key",
    *(f"{BROKER_FILES}/{name}" for name in ("ca.pem", "server.pem", "server.key", "access", "revoked.pem")),
)  # fmt: skip
DEPLOYMENT = "/var/lib/nonn-edge/deployment"
# Each program keeps its own updates: it drops what it does not need, and both may run on one device.
STORES = "/var/lib/nonn-edge"
PROBLEMS = "/run/nonn-edge/problems.txt"  # the agent tells them to the site; gone with the next start
PROGRAM_GROUP = "nonn-edge"
# Group and owner: newer brokers warn of rules and keys that are another's, and say that they will refuse them.
BROKER_ACCOUNT = ("mosquitto", "mosquitto")


@dataclass(frozen=True)
class DeviceFile:
    """One file to write below the root."""

    path: str
    content: str
    mode: int = 0o644
    group: str = "root"
    owner: str = "root"


@dataclass(frozen=True)
class Secrets:
    """What was wiped from the card and is kept on the device; empty where there is none."""

    psk: str = ""
    device_key: str = ""
    server_key: str = ""


class MissingSecretError(ValueError):
    """The card says that a secret was applied, and the device has none."""


def resolve_secrets(settings: CardSettings, kept: Secrets) -> Secrets:
    """Return the secrets that hold now: the card's where it has some, else those the device kept."""
    server_key = settings.server.key if settings.server else ""
    psk = settings.wifi.psk if settings.wifi else ""
    return Secrets(
        psk=_resolve("[wifi] psk", psk, kept.psk),
        device_key=_resolve("[broker] key", settings.broker.key, kept.device_key),
        server_key=_resolve("[broker_server] key", server_key, kept.server_key),
    )


def _resolve(name: str, given: str, kept: str) -> str:
    if given != APPLIED:
        return given
    if not kept:
        raise MissingSecretError(f'{name} = "{APPLIED}": this device has not taken it; write the real one')
    return kept


def device_files(settings: CardSettings, secrets: Secrets, *, has_deployment: bool = True) -> list[DeviceFile]:
    """Return every file that the settings ask for; without a deployment on the device its first one is an update."""
    files = [
        DeviceFile("etc/hostname", settings.name + "\n"),
        DeviceFile("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {settings.name}\n::1 localhost\n"),
        *_identity(settings.broker, secrets.device_key),
    ]
    if settings.runs_agent:
        files.append(DeviceFile(AGENT_CONFIG, _agent_config(settings, has_deployment), 0o640, PROGRAM_GROUP))
    if settings.runs_coordinator:
        files.append(DeviceFile(COORDINATOR_CONFIG, _coordinator_config(settings), 0o640, PROGRAM_GROUP))
        files += _broker_server(settings, settings.server, secrets.server_key)
    if settings.wifi is not None:
        files.append(DeviceFile(WIFI_CONFIG, _wifi_config(settings.wifi, secrets.psk), 0o600))
    if settings.trusted_keys:
        files.append(DeviceFile(TRUSTED_KEYS, settings.trusted_keys))
    if settings.authorized_key:
        files.append(DeviceFile(AUTHORIZED_KEYS, settings.authorized_key + "\n"))
    return files


def _identity(broker: Broker, key: str) -> list[DeviceFile]:
    if not broker.tls:
        return []
    return [
        DeviceFile(f"{TLS}/ca.pem", broker.ca),
        DeviceFile(DEVICE_CERTIFICATE, broker.cert),
        DeviceFile(f"{TLS}/device.key", key, 0o640, PROGRAM_GROUP),
    ]


def _broker_table(broker: Broker) -> str:
    lines = ["", "[broker]", f"host = {json.dumps(broker.host)}", f"port = {broker.port}"]
    if broker.tls:
        lines += [
            f'ca_file = "/{TLS}/ca.pem"',
            f'certificate_file = "/{DEVICE_CERTIFICATE}"',
            f'key_file = "/{TLS}/device.key"',
        ]
    if broker.insecure:
        lines.append("insecure = true")
    return "\n".join(lines) + "\n"


def _updates_table(settings: CardSettings, program: str) -> str:
    if not settings.trusted_keys:
        return ""
    return f'\n[updates]\nstore = "{STORES}/{program}"\ntrusted_keys = "/{TRUSTED_KEYS}"\n'


def _agent_config(settings: CardSettings, has_deployment: bool) -> str:
    lines = [
        "# Written from the card's nonn-edge.toml; change that file and restart.",
        *([f'deployment = "{DEPLOYMENT}"'] if has_deployment or not settings.trusted_keys else []),
        f"students = {_students(settings.students)}",
        f'site = "{settings.site}"',
        f'device = "{settings.name}"',
        f'problems_file = "{PROBLEMS}"',
    ]
    tables = _camera_table(settings) + _updates_table(settings, "agent") + _broker_table(settings.broker)
    return "\n".join(lines) + "\n" + tables


def _students(students: tuple[int, ...] | str) -> str:
    if isinstance(students, str):
        return json.dumps(students)
    return str(list(students)) if students else '"none"'


def _camera_table(settings: CardSettings) -> str:
    camera = settings.camera
    if camera is None:
        return ""
    lines = ["", "[camera]", f'kind = "{camera.kind}"', f'source = "{camera.source or settings.name}"']
    lines.append(f"frames_per_s = {camera.frames_per_s}")
    if camera.kind == "v4l2":
        lines.append(f'location = "{camera.device}"')
    return "\n".join(lines) + "\n"


def _coordinator_config(settings: CardSettings) -> str:
    lines = [
        "# Written from the card's nonn-edge.toml; change that file and restart.",
        f'deployment = "{DEPLOYMENT}"',
        f'site = "{settings.site}"',
    ]
    tables = _updates_table(settings, "coordinator") + _broker_table(settings.broker)
    return "\n".join(lines) + "\n" + tables


def _broker_server(settings: CardSettings, server: BrokerServer | None, key: str) -> list[DeviceFile]:
    """The very configuration that `nonn-coordinator init` writes, so that what tests hold of one holds of both."""
    site, port = settings.site, settings.broker.port
    if server is None:
        return [DeviceFile(BROKER_CONFIG, plain_configuration(site, port, everywhere=settings.broker.insecure))]
    texts = {"ca.pem": settings.broker.ca, "server.pem": server.cert, "revoked.pem": server.crl}
    secrets = {"server.key": key, "access": server.acl.rstrip("\n") + "\n"}
    return [
        *(DeviceFile(f"{BROKER_FILES}/{name}", text) for name, text in texts.items()),
        *(DeviceFile(f"{BROKER_FILES}/{name}", text, 0o600, *BROKER_ACCOUNT) for name, text in secrets.items()),
        DeviceFile(BROKER_CONFIG, broker_configuration(site, PurePath("/", BROKER_FILES), port)),
    ]


def _wifi_config(wifi: Wifi, psk: str) -> str:
    # The name in hexadecimal needs no quoting rules.
    return (
        f"country={wifi.country}\nctrl_interface=DIR=/run/wpa_supplicant\n"
        f'network={{\n\tssid={wifi.ssid.encode().hex()}\n\tpsk="{psk}"\n\tieee80211w=1\n}}\n'
    )
