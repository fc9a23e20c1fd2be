"""mosquitto's configuration for one site, for versions 2.0 and 2.1. Pure."""

from pathlib import PurePath

# No frame of ours comes near it; artifacts travel in chunks. It is also the default of mosquitto 2.1.
MAX_PACKET_BYTES = 2_000_000
# For each client that does not keep up; QoS 0 messages beyond are dropped, and a slow reader costs no more memory.
MAX_QUEUED_MESSAGES, MAX_QUEUED_BYTES = 1000, 8_000_000
# A login is bounded before anybody is known: so many connections at once, whoever opens them.
MAX_CONNECTIONS = 1000
_LIMITS_AND_LOG = (
    "# Without it every small message waits up to 40 ms for the other side's acknowledgement.",
    "set_tcp_nodelay true",
    f"max_packet_size {MAX_PACKET_BYTES}",
    f"max_queued_messages {MAX_QUEUED_MESSAGES}",
    f"max_queued_bytes {MAX_QUEUED_BYTES}",
    "# Retained messages outlive a restart: the deployment that the site shall run is one.",
    "persistence true",
    "# What doctor reads: refused logins, with the reason.",
    "connection_messages true",
    "log_timestamp_format %Y-%m-%dT%H:%M:%S",
)


def broker_configuration(site: str, folder: PurePath, port: int) -> str:
    """For a file in conf.d, or as the whole of `mosquitto -c`. `folder`: where certificates and rules lie there."""
    lines = [
        f"# The broker of site {site}, written by nonn-coordinator init.",
        "",
        "# Every client proves who it is; the name in its certificate is its user name, which the access file goes by.",
        f"listener {port}",
        f"max_connections {MAX_CONNECTIONS}",
        f"cafile {folder / 'ca.pem'}",
        f"certfile {folder / 'server.pem'}",
        f"keyfile {folder / 'server.key'}",
        f"crlfile {folder / 'revoked.pem'}",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        f"acl_file {folder / 'access'}",
        "",
        *_LIMITS_AND_LOG,
    ]
    return "\n".join(lines) + "\n"


def plain_configuration(site: str, port: int, everywhere: bool) -> str:
    """Neither encrypted nor asking who it is: on loopback, or `everywhere` because its owner said insecure."""
    lines = [
        f"# The broker of site {site}: whoever reaches it reads and answers.",
        f"listener {port}" if everywhere else f"listener {port} 127.0.0.1",
        f"max_connections {MAX_CONNECTIONS}",
        "allow_anonymous true",
        "",
        *_LIMITS_AND_LOG,
    ]
    return "\n".join(lines) + "\n"


def standalone_configuration(site: str, folder: PurePath, port: int, as_root: bool = False) -> str:
    """The same with what Debian's own mosquitto.conf says, for a broker started as `mosquitto -c FILE`."""
    return (
        broker_configuration(site, folder, port)
        + (
            "\n# Not in Debian's conf.d: /etc/mosquitto/mosquitto.conf says these already.\n"
            f"persistence_location {folder / 'state'}/\n"
            f"log_dest file {folder / 'broker.log'}\n"
            "log_dest stderr\n"
        )
        + ("# init ran as root: nobody else can read these files.\nuser root\n" if as_root else "")
    )
