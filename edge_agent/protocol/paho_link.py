"""The link by paho-mqtt, for who prefers the well-known client to our own (docs/decisions/0015). One thread.

Slower for each message, the same to its callers: `poll` does the network work, paho's callbacks only note what
happened. This is the only module that imports paho.
"""

import select
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.protocol import mqtt_reasons as reasons
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.healing_link import LOGIN_TIMEOUT_S, LONGEST_WAIT_S, HealingLink
from edge_agent.protocol.link import Connected, Message, Outgoing
from edge_agent.protocol.mqtt_packets import MAX_PACKET_BYTES
from edge_agent.protocol.mqtt_socket import CONNECT_TIMEOUT_S, QUICK_ACK
from edge_agent.protocol.tls_troubles import tls_trouble

# A poll returns after this many messages, so that deadlines are looked at even in a flood.
MAX_EVENTS_PER_POLL = 256
# QoS 0 messages that wait for a full socket; beyond, new ones are dropped and counted.
MAX_UNSENT = 512
MAX_QUEUED = 1000  # QoS 1


class PahoLink(HealingLink):
    """The same over paho's client."""

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        subscriptions: Sequence[tuple[str, int]],
        will: Outgoing | None = None,
    ) -> None:
        super().__init__(settings, client_id, subscriptions, will)
        self._topics: dict[int, str] = {}  # of QoS 1 messages without acknowledgement, by packet id
        self._trouble: ReasonCode | str | None = None  # of the present login; on_disconnect does not say it
        self._unsent = 0
        self._client = self._make_client()

    @property
    def nodelay(self) -> bool:
        """The present connection sends small messages at once."""
        connection: Any = self._client.socket()
        return connection is not None and bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def publish(self, message: Outgoing) -> bool:
        """Send, or queue for a busy socket. False: dropped."""
        if message.qos == 0 and (not self.connected or self._unsent >= MAX_UNSENT):
            self.dropped += 1
            return False
        properties = self._publish_properties(message)
        receipt = self._client.publish(message.topic, message.payload, message.qos, message.retain, properties)
        self._unsent = self._unsent + 1 if self._client.want_write() else 0
        if receipt.rc == mqtt.MQTT_ERR_QUEUE_SIZE:
            self.dropped += 1
            return False
        if message.qos:
            self._topics[receipt.mid] = message.topic
        return True

    def close(self, last_words: Sequence[Outgoing] = (), timeout_s: float = 1.0) -> None:
        """Publish `last_words`, wait until they are with the broker, disconnect. The will is not sent."""
        deadline = time.monotonic() + timeout_s
        if self.connected:
            for message in last_words:
                self.publish(message)
            while self.connected and time.monotonic() < deadline:
                if not self._topics and not self._client.want_write():
                    break
                self._network_step(0.02)
            self._client.disconnect()
        self.connected = False

    def _send_subscribe(self, topic_filter: str, qos: int) -> None:
        self._client.subscribe(topic_filter, qos)

    def _send_unsubscribe(self, topic_filter: str) -> None:
        self._client.unsubscribe(topic_filter)

    def _network_step(self, timeout_s: float) -> None:
        connection: Any = self._client.socket()
        if connection is None:
            self._connect_when_due(timeout_s)
            return
        if not self.connected and self._trouble is None and time.monotonic() > self._login_until:
            self._trouble = f"no answer to the login within {LOGIN_TIMEOUT_S:g} s"
            connection.shutdown(socket.SHUT_RDWR)  # the read below sees the end of the connection
        if self._wait(connection, timeout_s):
            self._read(connection)
        if self._client.want_write():
            self._client.loop_write()
        else:
            self._unsent = 0
        self._client.loop_misc()

    def _wait(self, connection: Any, timeout_s: float) -> bool:
        if _buffered(connection):
            return True
        own, poller = connection.fileno(), select.poll()
        poller.register(own, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        for descriptor in self._watched:
            poller.register(descriptor, select.POLLIN)
        ready = poller.poll(min(timeout_s, LONGEST_WAIT_S) * 1000)
        self._woken = any(descriptor in self._watched for descriptor, _ in ready)
        return any(descriptor == own and flags & ~select.POLLOUT for descriptor, flags in ready)

    def _read(self, connection: Any) -> None:
        while len(self._events) < MAX_EVENTS_PER_POLL:
            self._client.loop_read()
            present: Any = self._client.socket()
            if present is not connection:
                return
            if QUICK_ACK is not None:
                present.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
            if not _readable(connection):
                return

    def _connect_when_due(self, timeout_s: float) -> None:
        if not self._attempt_is_due(timeout_s):
            return
        try:
            self._client.reconnect()
            self._login_until = time.monotonic() + LOGIN_TIMEOUT_S
        except (OSError, ValueError) as error:
            why = tls_trouble(error) if isinstance(error, OSError) else str(error)
            self._report_no_connection(why, isinstance(error, ssl.SSLError))

    def _make_client(self) -> mqtt.Client:
        version = MQTTProtocolVersion.MQTTv5 if self._is_5 else MQTTProtocolVersion.MQTTv311
        client = mqtt.Client(CallbackAPIVersion.VERSION2, self._client_id, protocol=version, reconnect_on_failure=False)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_queued_messages_set(MAX_QUEUED)
        settings = self.settings
        if settings.username is not None:
            client.username_pw_set(
                settings.username, settings.password.get_secret_value() if settings.password else None
            )
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, self._will.qos, self._will.retain)
        client.on_socket_open = _set_nodelay
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        where = (settings.host, settings.port, settings.keepalive_s)
        if self._is_5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = MAX_PACKET_BYTES
            client.connect_async(*where, clean_start=True, properties=properties)
        else:
            client.connect_async(*where)
        return client

    def _on_connect(self, client: mqtt.Client, _user: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self._trouble = reason
            return
        self._note_connected()
        if self._subscriptions:
            client.subscribe(self._subscriptions)
        self._events.append(Connected("5" if self._is_5 else "3.1.1"))

    def _on_disconnect(self, _client: Any, _user: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        trouble, self._trouble = self._trouble or reason, None
        code = trouble.value if isinstance(trouble, ReasonCode) else None
        if self._note_lost(str(trouble) if code is None else reasons.words(code), code):
            self._client = self._make_client()

    def _on_message(self, _client: Any, _user: Any, message: mqtt.MQTTMessage) -> None:
        properties = message.properties
        response_topic = getattr(properties, "ResponseTopic", None)
        correlation = getattr(properties, "CorrelationData", None)
        self._events.append(Message(message.topic, bytes(message.payload), message.retain, response_topic, correlation))

    def _on_publish(self, _client: Any, _user: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        topic = self._topics.pop(mid, None)
        if topic is not None and reason.is_failure:
            self._report_publication(topic, reason.value)

    def _on_subscribe(self, _client: Any, _user: Any, _mid: int, codes: list[ReasonCode], _properties: Any) -> None:
        self._report_subscriptions([code.value for code in codes if code.is_failure])

    def _publish_properties(self, message: Outgoing) -> Properties | None:
        extras = (message.expiry_s, message.correlation, message.response_topic)
        if not self._is_5 or extras == (None, None, None):
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if message.expiry_s is not None:
            properties.MessageExpiryInterval = message.expiry_s
        if message.correlation is not None:
            properties.CorrelationData = message.correlation
        if message.response_topic is not None:
            properties.ResponseTopic = message.response_topic
        return properties


def _set_nodelay(_client: mqtt.Client, _user: Any, connection: Any) -> None:
    # Without it Nagle and delayed ACKs add 40 ms to every small message (docs/decisions/0003).
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _readable(connection: Any) -> bool:
    return _buffered(connection) or bool(select.select([connection], [], [], 0)[0])


def _buffered(connection: Any) -> bool:
    """A TLS socket may hold decrypted bytes that select() does not see."""
    return bool(isinstance(connection, ssl.SSLSocket) and connection.pending())
