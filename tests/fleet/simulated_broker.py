"""An MQTT broker in memory and the links to it: delays, losses, repeats and cuts, on the fleet's clock."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from edge_agent.protocol.link import Connected, Disconnected, Event, Message, Outgoing

if TYPE_CHECKING:
    from simulated_programs import Node
    from simulator import Fleet


@dataclass
class LinkFaults:
    """What may happen to a message on its way."""

    delay_s: float = 0.001
    jitter_s: float = 0.0
    loss: float = 0.0  # of QoS 0; QoS 1 is sent again by the broker
    repeat: float = 0.0


class SimLink:
    """The link's seam: one client of the broker in memory."""

    def __init__(self, fleet: "Fleet", name: str, subscriptions: Sequence[tuple[str, int]]) -> None:
        self.fleet, self.name = fleet, name
        self.dropped = 0
        self.will: Outgoing | None = None
        self.faults = LinkFaults()
        self.connected = False
        self.cut = False
        self.subscriptions = dict(subscriptions)
        self.inbox: list[tuple[float, int, Event]] = []
        self.queued: list[Outgoing] = []
        self.node: Node | None = None

    def poll(self, timeout_s: float, gather_s: float = 0.0) -> list[Event]:
        events = []
        while self.inbox and self.inbox[0][0] <= self.fleet.now:
            events.append(heapq.heappop(self.inbox)[2])
        return events

    def publish(self, message: Outgoing) -> bool:
        if not self.connected:
            if message.qos == 0:
                self.dropped += 1
                return False
            self.queued.append(message)
            return True
        self.fleet.broker.accept(self, message)
        return True

    def flush(self) -> None:
        pass

    def subscribe(self, topic_filter: str, qos: int) -> None:
        self.subscriptions[topic_filter] = qos
        if self.connected:
            self.fleet.broker.send_retained(self, topic_filter)

    def unsubscribe(self, topic_filter: str) -> None:
        self.subscriptions.pop(topic_filter, None)

    def watch(self, descriptor: int) -> None:
        pass

    def close(self, last_words: Sequence[Outgoing] = ()) -> None:
        for message in last_words:
            self.publish(message)
        self.connected = False
        self.fleet.broker.clients.discard(self)

    def connect(self) -> None:
        """Log in: subscribe, hear what is retained, send what waited."""
        if self.connected or self.cut or not self.fleet.broker.up:
            return
        self.connected = True
        self.fleet.broker.clients.add(self)
        self.deliver(Connected("5"), 0.0)
        for topic_filter in self.subscriptions:
            self.fleet.broker.send_retained(self, topic_filter)
        queued, self.queued = self.queued, []
        for message in queued:
            self.publish(message)

    def lose(self, reason: str, will: bool = True) -> None:
        """The connection breaks; the broker publishes the will."""
        if not self.connected:
            return
        self.connected = False
        self.fleet.broker.clients.discard(self)
        self.deliver(Disconnected(reason), 0.0)
        if will and self.will is not None and self.fleet.broker.up:
            self.fleet.broker.route(self.will)

    def deliver(self, event: Event, delay_s: float) -> None:
        at = self.fleet.now + delay_s
        heapq.heappush(self.inbox, (at, next(self.fleet.sequence), event))
        if self.node is not None:
            self.fleet.at(at, self.node.step)


class SimBroker:
    """Topics, wildcards, retained messages."""

    def __init__(self, fleet: "Fleet") -> None:
        self.fleet = fleet
        self.up = True
        self.down_since = 0.0
        self.clients: set[SimLink] = set()
        self.retained: dict[str, Outgoing] = {}
        self.taps: list[Callable[[Outgoing], None]] = []

    def accept(self, sender: SimLink, message: Outgoing) -> None:
        """A client publishes: the message arrives here after the sender's delay, in order."""
        delay_s = self._delay(sender, message)
        if delay_s is None:
            return
        if sender.node is not None:  # results leave when the interpreter is done
            delay_s += max(0.0, sender.node.busy_until - self.fleet.now)
        self.fleet.at(self.fleet.now + delay_s, lambda: self._arrive(sender, message))

    def _arrive(self, sender: SimLink, message: Outgoing) -> None:
        """QoS 1 without an acknowledgement stays with its sender, who sends it again."""
        if self.up:
            self.route(message)
        elif message.qos:
            sender.queued.append(message)

    def route(self, message: Outgoing) -> None:
        """Keep it if it is retained, and pass it on to everybody who asked for it."""
        for tap in self.taps:
            tap(message)
        if message.retain:
            if message.payload:
                self.retained[message.topic] = message
            else:
                self.retained.pop(message.topic, None)
        for client in sorted(self.clients, key=lambda client: client.name):
            if any(matches(topic_filter, message.topic) for topic_filter in client.subscriptions):
                self._send(client, message, retain=False)

    def send_retained(self, client: SimLink, topic_filter: str) -> None:
        for topic, message in list(self.retained.items()):
            if matches(topic_filter, topic):
                self._send(client, message, retain=True)

    def _send(self, client: SimLink, message: Outgoing, retain: bool) -> None:
        copies = 2 if self.fleet.random.random() < client.faults.repeat else 1
        for _ in range(copies):
            delay_s = self._delay(client, message)
            if delay_s is not None:
                incoming = Message(message.topic, message.payload, retain, message.response_topic, message.correlation)
                client.deliver(incoming, delay_s)

    def _delay(self, client: SimLink, message: Outgoing) -> float | None:
        faults, chance = client.faults, self.fleet.random
        if message.qos == 0 and chance.random() < faults.loss:
            return None
        return faults.delay_s + chance.random() * faults.jitter_s


@lru_cache(100_000)
def matches(topic_filter: str, topic: str) -> bool:
    """MQTT's own rules for + and #."""
    levels, wanted = topic.split("/"), topic_filter.split("/")
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(levels) or level not in ("+", levels[position]):
            return False
    return len(levels) == len(wanted)
