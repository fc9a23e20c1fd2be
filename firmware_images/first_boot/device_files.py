"""From checked settings to the files that make a device: paths, content, modes. Pure."""

import json
from dataclasses import dataclass

from firmware_images.first_boot.card_settings import APPLIED, Broker, BrokerServer, CardSettings, Wifi

TLS = "etc/nonn-edge/tls"
DEVICE_CERTIFICATE = f"{TLS}/device.pem"
AGENT_CONFIG = "etc/nonn-edge/agent.toml"
COORDINATOR_CONFIG = "etc/nonn-edge/coordinator.toml"
BROKER_CONFIG = "etc/mosquitto/conf.d/nonn-edge.conf"
BROKER_ACL = "etc/mosquitto/nonn-edge.acl"
WIFI_CONFIG = "etc/wpa_supplicant/wpa_supplicant-wlan0.conf"
AUTHORIZED_KEYS = "etc/ssh/authorized_keys.d/root"
TRUSTED_KEYS = "etc/nonn-edge/trusted-keys"
# Units start only where their file exists, so a file that the settings no longer ask for is removed.
OPTIONAL_PATHS = (
    AGENT_CONFIG, COORDINATOR_CONFIG, BROKER_CONFIG, BROKER_ACL, WIFI_CONFIG, AUTHORIZED_KEYS, TRUSTED_KEYS,
    f"{TLS}/ca.pem", DEVICE_CERTIFICATE, f"{TLS}/device.key", f"{TLS}/server.pem", f"{TLS}/server.key",
    f"{TLS}/revoked.pem",
)  # fmt: skip
DEPLOYMENT = "/var/lib/nonn-edge/deployment"
# Each program keeps its own updates: it drops what it does not need, and both may run on one device.
STORES = "/var/lib/nonn-edge"
PROBLEMS = "/run/nonn-edge/problems.txt"  # the agent tells them to the site; gone with the next start
PROGRAM_GROUP = "nonn-edge"
BROKER_GROUP = "mosquitto"
# No frame is larger than a few hundred KB; artifacts travel in chunks.
MAX_PACKET_BYTES = 2_000_000
MAX_QUEUED_MESSAGES = 1000


@dataclass(frozen=True)
class DeviceFile:
    """One file to write below the root."""

    path: str
    content: str
    mode: int = 0o644
    group: str = "root"


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
    lines = ["# Written from the card's nonn-edge.toml.", "per_listener_settings false"]
    files: list[DeviceFile] = []
    if server is not None:
        lines += [
            f"listener {settings.broker.port}",
            f"cafile /{TLS}/ca.pem",
            f"certfile /{TLS}/server.pem",
            f"keyfile /{TLS}/server.key",
            "require_certificate true",
            "use_identity_as_username true",
            "allow_anonymous false",
            f"acl_file /{BROKER_ACL}",
        ]
        if server.crl:
            lines.append(f"crlfile /{TLS}/revoked.pem")
            files.append(DeviceFile(f"{TLS}/revoked.pem", server.crl))
        files += [
            DeviceFile(f"{TLS}/server.pem", server.cert),
            DeviceFile(f"{TLS}/server.key", key, 0o640, BROKER_GROUP),
            DeviceFile(BROKER_ACL, server.acl.rstrip("\n") + "\n", 0o640, BROKER_GROUP),
        ]
    else:
        # Plain and anonymous: on loopback, or wherever the card says insecure = true.
        address = "" if settings.broker.insecure else " 127.0.0.1"
        lines += [f"listener {settings.broker.port}{address}", "allow_anonymous true"]
    lines += [
        # Without it every small message waits up to 40 ms for the other side's acknowledgement.
        "set_tcp_nodelay true",
        f"max_packet_size {MAX_PACKET_BYTES}",
        f"max_queued_messages {MAX_QUEUED_MESSAGES}",
    ]
    return [*files, DeviceFile(BROKER_CONFIG, "\n".join(lines) + "\n")]


def _wifi_config(wifi: Wifi, psk: str) -> str:
    # The name in hexadecimal needs no quoting rules.
    return (
        f"country={wifi.country}\nctrl_interface=DIR=/run/wpa_supplicant\n"
        f'network={{\n\tssid={wifi.ssid.encode().hex()}\n\tpsk="{psk}"\n\tieee80211w=1\n}}\n'
    )
