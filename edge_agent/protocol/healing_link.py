"""What every client of the broker does alike: polling, subscriptions that outlive a connection, trying again."""

import random
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from edge_agent.protocol import mqtt_reasons as reasons
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.link import Disconnected, Event, Outgoing
from edge_agent.protocol.mqtt_socket import tls_context

FIRST_RETRY_S, LAST_RETRY_S = 0.1, 2.0
# amqtt reads a will of MQTT 5 as MQTT 3.1.1, finds it too short and waits for more, for ever.
LOGIN_TIMEOUT_S = 3.0
LONGEST_WAIT_S = 1.0  # pings are sent between two waits


class HealingLink(ABC):
    """A connection that heals itself, driven by `poll` from one thread."""

    def __init__(
        self, settings: BrokerSettings, client_id: str, subscriptions: Sequence[tuple[str, int]], will: Outgoing | None
    ) -> None:
        self.settings = settings
        self.dropped = 0  # not sent: no connection, a socket that stays full, or longer than the broker takes
        self.connected = False  # logged in at the broker
        # A broker ends the older of two connections with one id: nobody must be able to guess this one.
        self._client_id = f"{client_id}-{secrets.token_hex(8)}"
        self._subscriptions = list(subscriptions)
        self._will = will
        self._tls = tls_context(settings)
        self._is_5 = settings.protocol != "3.1.1"
        self._events: list[Event] = []
        self._watched: list[int] = []
        self._woken = False
        self._caught_up = True  # nothing is known to wait in the socket
        self._ever_connected = False
        self._login_until = 0.0
        self._attempt = 0
        self._next_attempt = 0.0

    def poll(self, timeout_s: float, gather_s: float = 0.0) -> list[Event]:
        """Wait at most `timeout_s` for the network, then return all that came, oldest first; first, `gather_s` pass."""
        if gather_s and self._caught_up:
            self.flush()
            time.sleep(gather_s)
        deadline = time.monotonic() + timeout_s if timeout_s else 0.0
        remaining_s = timeout_s
        while True:
            self._network_step(remaining_s)
            if not (self._events or self._woken):
                remaining_s = deadline - time.monotonic()
                if remaining_s > 0:
                    continue
            self._woken = False
            events, self._events = self._events, []
            return events

    def subscribe(self, topic_filter: str, qos: int) -> None:
        """Subscribe now and after every reconnect."""
        if (topic_filter, qos) not in self._subscriptions:
            self._subscriptions.append((topic_filter, qos))
            if self.connected:
                self._send_subscribe(topic_filter, qos)

    def unsubscribe(self, topic_filter: str) -> None:
        """Forget a subscription."""
        self._subscriptions = [entry for entry in self._subscriptions if entry[0] != topic_filter]
        if self.connected:
            self._send_unsubscribe(topic_filter)

    def flush(self) -> None:  # noqa: B027 (a link that sends at once has nothing to do)
        """Send what waits for the next poll."""

    def watch(self, descriptor: int) -> None:
        """Let `poll` return early while this file descriptor is readable."""
        self._watched.append(descriptor)

    @abstractmethod
    def _network_step(self, timeout_s: float) -> None:
        """Wait at most `timeout_s`, read, write, keep alive, or connect when that is due."""

    @abstractmethod
    def _send_subscribe(self, topic_filter: str, qos: int) -> None: ...

    @abstractmethod
    def _send_unsubscribe(self, topic_filter: str) -> None: ...

    def _attempt_is_due(self, timeout_s: float) -> bool:
        """Whether to connect now; else some of the wait, at most `timeout_s`, is over."""
        wait_s = self._next_attempt - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
            return False
        self._attempt += 1
        backoff_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(self._attempt, 10))
        # Spread out: after a broker restart a whole fleet comes back at once.
        self._next_attempt = time.monotonic() + backoff_s * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
        return True

    def _report_no_connection(self, why: str, refused: bool) -> None:
        self._events.append(Disconnected(f"{self.settings.host}:{self.settings.port}: {why}", refused=refused))

    def _report_subscriptions(self, failed_codes: Sequence[int]) -> None:
        """Tell which answers to subscriptions said no."""
        self._events.extend(
            Disconnected(f"subscription refused: {reasons.words(code)}", refused=True) for code in failed_codes
        )

    def _report_publication(self, topic: str, code: int) -> None:
        self._events.append(Disconnected(f"publishing on {topic} refused: {reasons.words(code)}", refused=True))

    def _note_connected(self) -> None:
        self.connected = self._ever_connected = True
        self._attempt = 0

    def _note_lost(self, why: str, code: int | None) -> bool:
        """Report the end of a connection; True if the other version of MQTT has been chosen for the next one."""
        was_connected, self.connected = self.connected, False
        refused, unsupported = code in reasons.REFUSALS, code == reasons.UNSUPPORTED_VERSION
        # A broker that has accepted this version once is only restarting; else it may be old, and closes the
        # connection on an MQTT 5 login instead of saying no.
        unsure = unsupported or not (refused or self._ever_connected)
        other_version = not was_connected and self.settings.protocol == "auto" and unsure
        if other_version:
            self._is_5 = not self._is_5
            self._next_attempt = time.monotonic() + FIRST_RETRY_S
        self._report_no_connection(why, refused)
        return other_version
