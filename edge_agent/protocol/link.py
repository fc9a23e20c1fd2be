"""What travels between the loops and the broker, and the seam that carries it. Pure; mqtt_link is the real one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_agent.protocol.value import value


@value
class Message:
    """A message from the broker."""

    topic: str
    payload: bytes
    retain: bool
    response_topic: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """Logged in, subscriptions sent; births are due now."""

    protocol: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """Connection lost or refused; the link tries again by itself."""

    reason: str
    refused: bool = False


Event = Message | Connected | Disconnected


@value
class Outgoing:
    """A message to publish. Expiry, response topic and correlation are used where the broker speaks MQTT 5."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    expiry_s: int | None = None
    correlation: bytes | None = None
    response_topic: str | None = None


class Link(Protocol):
    """A connection that heals itself, driven by `poll` from one thread."""

    dropped: int  # QoS 0 messages not sent: no connection, or a socket that stays full

    @property
    def connected(self) -> bool:
        """Logged in at the broker."""
        ...

    def poll(self, timeout_s: float, gather_s: float = 0.0) -> list[Event]:
        """Send what waits; sleep `gather_s`, in which messages gather; wait at most `timeout_s` for the first one.

        Returns all that came, oldest first.
        """
        ...

    def publish(self, message: Outgoing) -> bool:
        """Send or queue; False: dropped."""
        ...

    def flush(self) -> None:
        """Send now what a link that coalesces would send with the next poll."""
        ...

    def subscribe(self, topic_filter: str, qos: int) -> None:
        """Subscribe now and after every reconnect."""
        ...

    def unsubscribe(self, topic_filter: str) -> None:
        """Forget a subscription."""
        ...

    def watch(self, descriptor: int) -> None:
        """Let `poll` return early while this file descriptor is readable."""
        ...

    def close(self, last_words: Sequence[Outgoing] = ()) -> None:
        """Publish `last_words`, then leave without the will."""
        ...


class Extension:
    """A part that plugs into the loop of an agent or coordinator; override what it needs."""

    def subscriptions(self) -> Sequence[tuple[str, int]]:
        """Topic filters and QoS that the loop subscribes to for it."""
        return ()

    def connected(self) -> None:
        """The broker is there, again or for the first time: publish what is retained."""

    def receive(self, message: Message) -> bool:  # noqa: ARG002 (for those who override it)
        """Take a message; True if it was meant for this part. ProtocolError is counted and logged by the loop."""
        return False

    def tick(self, now: float) -> None:
        """Called once a round of the loop, at least every quarter of a second. `now`: monotonic seconds."""
