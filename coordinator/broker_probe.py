"""Measures a broker from one client: login, version, round trips, and the 40 ms of a missing TCP_NODELAY."""

import socket
import statistics
import time
from dataclasses import dataclass

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.link import Connected, Disconnected, Message, Outgoing
from edge_agent.protocol.mqtt_link import MqttLink

ROUNDS = 25
BURST = 4  # as many students answer one frame
ROUND_TIMEOUT_S = 1.0
ENOUGH_FAILURES = 4
PAYLOAD = bytes(1024)  # about a feature message
VERSION_TOPIC = "$SYS/broker/version"


@dataclass
class BrokerFacts:
    """What a probe saw; None where it got no answer."""

    address: str
    tcp_error: str | None = None
    login_error: str | None = None
    refused: bool = False
    mqtt: str | None = None
    version: str | None = None
    round_trip_ms: float | None = None
    bursts_ms: tuple[float, ...] = ()


def probe_broker(settings: BrokerSettings, topic: str, client_id: str, timeout_s: float = 5.0) -> BrokerFacts:
    """Connect, read the version, and time messages over `topic`."""
    facts = BrokerFacts(f"{settings.host}:{settings.port}")
    facts.tcp_error = _tcp_error(settings.host, settings.port, timeout_s)
    if facts.tcp_error is None:
        # Nagle holds back the second of two small packets until the first is acknowledged, which a receiver that has
        # nothing to send does 40 ms later. So the receiver must be a connection of its own that stays silent, and
        # that does not acknowledge at once as our programs do.
        sender = MqttLink(settings, client_id, [(VERSION_TOPIC, 0)])
        receiver = MqttLink(settings, f"{client_id}-silent", [(topic, 0)], quick_ack=False)
        try:
            if _login(sender, facts, timeout_s) and _login(receiver, facts, timeout_s):
                single_ms = _times_ms(sender, receiver, topic, 1, facts)
                facts.round_trip_ms = statistics.median(single_ms) if single_ms else None
                facts.bursts_ms = _times_ms(sender, receiver, topic, BURST, facts)
        finally:
            sender.close()
            receiver.close()
    return facts


def _tcp_error(host: str, port: int, timeout_s: float) -> str | None:
    try:
        with socket.create_connection((host, port), timeout_s):
            return None
    except socket.gaierror:
        return f"the name {host} does not resolve"
    except TimeoutError:
        return f"no reply within {timeout_s:g} s"
    except OSError as error:
        return error.strerror or str(error)


def _login(link: MqttLink, facts: BrokerFacts, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    failures = 0
    # The link tries both versions of MQTT in turn: after as many failures it will not be otherwise.
    while time.monotonic() < deadline and failures < ENOUGH_FAILURES:
        for event in link.poll(0.05):
            match event:
                case Connected(protocol):
                    facts.mqtt, facts.login_error = protocol, None
                    # Versions are retained: they come with the subscription or not at all.
                    deadline = time.monotonic() + 0.3
                case Disconnected(reason, refused):
                    facts.login_error = reason
                    failures += 1
                    if refused:
                        facts.refused = True
                        return False
                case Message() as message if message.topic == VERSION_TOPIC:
                    facts.version = message.payload.decode(errors="replace")[:60]
        if link.connected and facts.version:
            break
    return link.connected


def _times_ms(sender: MqttLink, receiver: MqttLink, topic: str, burst: int, facts: BrokerFacts) -> tuple[float, ...]:
    """Time until the last of `burst` messages has arrived, milliseconds, for each round; () if one did not arrive."""
    times_ms: list[float] = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(burst):
            sender.publish(Outgoing(topic, PAYLOAD))
        sender.poll(0.0)
        if not _arrived(receiver, topic, burst, facts):
            return ()
        times_ms.append((time.perf_counter() - started) * 1000)
    return tuple(times_ms)


def _arrived(receiver: MqttLink, topic: str, count: int, facts: BrokerFacts) -> bool:
    deadline = time.monotonic() + ROUND_TIMEOUT_S
    while count and time.monotonic() < deadline:
        for event in receiver.poll(deadline - time.monotonic()):
            if isinstance(event, Message) and event.topic == topic:
                count -= 1
            elif isinstance(event, Disconnected):
                facts.login_error, facts.refused = event.reason, event.refused
                return False
    return count == 0
