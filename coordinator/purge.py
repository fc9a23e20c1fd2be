"""Clears retained messages: of devices that are gone for good, or of a whole site."""

import time
from collections.abc import Sequence

from coordinator.settings import ClientSettings
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.link import Connected, Disconnected, Link, Message, Outgoing
from edge_agent.protocol.link_choice import open_link
from edge_agent.protocol.status import NodeState, decode_status
from edge_agent.protocol.topics import SiteTopics, check_id

LOGIN_PATIENCE_S = 10.0
QUIET_S = 0.5  # a broker sends what it retains at once; so long without a message means that this was all


def purge(settings: ClientSettings, devices: Sequence[str], force: bool) -> list[str]:
    """Clear the retained topics of `devices`, or of the whole site without any; the topics that were cleared."""
    topics = SiteTopics(settings.site)
    try:
        filters = [f"{topics.root}/node/{check_id(device, 'device')}/#" for device in devices] or [f"{topics.root}/#"]
    except ValueError as error:
        raise UserError(str(error), ExitCode.USAGE) from None
    link = open_link(settings.broker, f"nonn-{settings.site}-purge-{time.time_ns()}", [(name, 1) for name in filters])
    try:
        retained = _retained(link, settings)
        online = sorted(topic.split("/")[-2] for topic, payload in retained.items() if _says_online(topic, payload))
        if online and not force:
            raise UserError(f"{online[0]} is online; stop it first, or use --force")
        for topic in retained:
            link.publish(Outgoing(topic, b"", qos=1, retain=True))
        # Our own deletions come back to us: when all are here, the broker has them.
        waiting, deadline = set(retained), time.monotonic() + LOGIN_PATIENCE_S
        while waiting and time.monotonic() < deadline:
            waiting -= {e.topic for e in link.poll(0.1) if isinstance(e, Message) and not e.payload}
        if waiting:
            left = f"{len(waiting)} of {len(retained)} topics, {min(waiting)} first"
            why = "expected a login that may write them, as the operator of nonn-coordinator init may"
            raise UserError(f"the broker did not clear {left}; {why}", ExitCode.UNAVAILABLE)
    finally:
        link.close()
    return sorted(retained)


def _retained(link: Link, settings: ClientSettings) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    deadline = time.monotonic() + LOGIN_PATIENCE_S
    quiet_at = deadline
    while time.monotonic() < min(deadline, quiet_at):
        for event in link.poll(0.05):
            match event:
                case Message(topic, payload, retain):
                    if retain:
                        found[topic] = payload
                        quiet_at = time.monotonic() + QUIET_S
                case Connected():
                    quiet_at = time.monotonic() + QUIET_S
                case Disconnected(reason):
                    if time.monotonic() > deadline - 0.5:
                        raise UserError(f"no broker: {reason}", ExitCode.UNAVAILABLE)
    if not link.connected:
        where = f"{settings.broker.host}:{settings.broker.port}"
        raise UserError(f"no broker at {where} after {LOGIN_PATIENCE_S:g} s", ExitCode.UNAVAILABLE)
    return found


def _says_online(topic: str, payload: bytes) -> bool:
    if not topic.endswith("/state"):
        return False
    try:
        return decode_status(NodeState, payload).state == "online"
    except ProtocolError:
        return False
