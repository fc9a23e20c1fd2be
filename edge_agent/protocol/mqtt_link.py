"""The link to the broker: login, subscriptions, QoS 1 and healing. One thread, no callbacks.

`poll` does all the network work and returns what happened. Nothing runs behind the caller's back, so an exception
surfaces in the caller's loop, and a stuck program stops sending pings: the broker then publishes its will.
"""

import time
from collections import deque
from collections.abc import Sequence

from edge_agent.protocol import mqtt_packets as packets
from edge_agent.protocol import mqtt_reasons as reasons
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.errors import DecodeError
from edge_agent.protocol.healing_link import LOGIN_TIMEOUT_S, LONGEST_WAIT_S, HealingLink
from edge_agent.protocol.link import Connected, Disconnected, Message, Outgoing
from edge_agent.protocol.mqtt_reader import PacketReader
from edge_agent.protocol.mqtt_socket import BrokerSocket
from edge_agent.protocol.tls_troubles import is_tls_error, tls_trouble

# Bytes that wait for a full socket; beyond, QoS 0 messages are dropped and counted. One frame of the largest size.
MAX_UNSENT_BYTES = packets.MAX_PACKET_BYTES
# QoS 1: without acknowledgement at a time (mosquitto's own limit, where the broker states none), and waiting.
IN_FLIGHT, MAX_QUEUED = 20, 4096
FIRST_FAILURE = 0x80  # reason codes from here on say no

__all__ = ["Connected", "Disconnected", "Message", "MqttLink", "Outgoing"]


class MqttLink(HealingLink):
    """The client that is used unless another is asked for; see docs/decisions/0015."""

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        subscriptions: Sequence[tuple[str, int]],
        will: Outgoing | None = None,
        coalesce: bool = False,
        quick_ack: bool = True,
    ) -> None:
        """`coalesce`: what is published between two polls leaves together, at the second one.

        `quick_ack`: see BrokerSocket; the doctor does without, to feel what others feel.
        """
        super().__init__(settings, client_id, subscriptions, will)
        self._coalesce = coalesce
        self._quick_ack = quick_ack
        self._socket: BrokerSocket | None = None
        self._reader = PacketReader(self._is_5)
        self._packet_id = 0
        self._queued: deque[Outgoing] = deque()
        self._in_flight: dict[int, Outgoing] = {}
        self._in_flight_maximum = IN_FLIGHT
        self._packet_maximum = packets.MAX_REMAINING
        self._keepalive_s = float(settings.keepalive_s)
        self._heard_at = 0.0
        self._pinged_at: float | None = None

    @property
    def nodelay(self) -> bool:
        """The present connection sends small messages at once."""
        return self._socket is not None and self._socket.nodelay

    def publish(self, message: Outgoing) -> bool:
        """Send, or queue for a busy socket. False: dropped (no connection, a full socket, too many waiting)."""
        if message.qos:
            return self._publish_surely(message)
        connection = self._socket
        if connection is None or not self.connected or len(connection.unsent) > MAX_UNSENT_BYTES:
            self.dropped += 1
            return False
        return self._send_message(message, 0)

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        try:
            if self._socket is not None and self._socket.unsent:
                self._socket.flush()
        except OSError as error:
            self._lose(error.strerror or str(error))

    def close(self, last_words: Sequence[Outgoing] = (), timeout_s: float = 1.0) -> None:
        """Publish `last_words`, wait until they are with the broker, disconnect. The will is not sent."""
        deadline = time.monotonic() + timeout_s
        if self.connected:
            for message in last_words:
                self.publish(message)
            while self.connected and (self._queued or self._in_flight) and time.monotonic() < deadline:
                self._network_step(0.02)
        if self._socket is not None:
            self._socket.leave(packets.GOODBYE)
        self._socket, self.connected = None, False

    def _send_subscribe(self, topic_filter: str, qos: int) -> None:
        self._send(packets.encode_subscribe(self._next_packet_id(), [(topic_filter, qos)], self._is_5))

    def _send_unsubscribe(self, topic_filter: str) -> None:
        self._send(packets.encode_unsubscribe(self._next_packet_id(), topic_filter, self._is_5))

    def _publish_surely(self, message: Outgoing) -> bool:
        if len(self._queued) + len(self._in_flight) >= MAX_QUEUED:
            self.dropped += 1
            return False
        self._queued.append(message)
        self._send_queued()
        return True

    def _send_queued(self) -> None:
        while self.connected and self._queued and len(self._in_flight) < self._in_flight_maximum:
            message = self._queued.popleft()
            packet_id = self._next_packet_id()
            self._in_flight[packet_id] = message
            if not self._send_message(message, packet_id):
                del self._in_flight[packet_id]

    def _send_message(self, message: Outgoing, packet_id: int, again: bool = False) -> bool:
        packet = packets.encode_publish(message, self._is_5, packet_id, again)
        if len(packet) > self._packet_maximum:  # the broker would end the connection
            self.dropped += 1
            return False
        self._send(packet)
        return True

    def _next_packet_id(self) -> int:
        while True:
            self._packet_id = self._packet_id % 65_535 + 1
            if self._packet_id not in self._in_flight:
                return self._packet_id

    def _send(self, packet: bytes) -> None:
        if self._socket is not None:
            self._socket.unsent += packet
            if not self._coalesce:
                self.flush()

    def _network_step(self, timeout_s: float) -> None:
        if self._socket is None:
            self._connect_when_due(timeout_s)
            return
        self.flush()
        if self._socket is not None:
            readable, woken = self._socket.wait(min(timeout_s, LONGEST_WAIT_S), self._watched)
            self._woken = self._woken or woken
            if readable:
                self._read(self._socket)
                if not self._coalesce:
                    self.flush()  # acknowledgements
        self._keep_alive(time.monotonic())

    def _read(self, connection: BrokerSocket) -> None:
        try:
            chunk = connection.receive()
        except OSError as error:
            self._lose(tls_trouble(error))
            return
        self._caught_up = not connection.has_more
        if chunk is None:
            return
        if not chunk:
            self._lose("connection closed by the broker")
            return
        self._heard_at, self._pinged_at = time.monotonic(), None
        try:
            arrived = self._reader.feed(chunk)
        except DecodeError as error:
            self._lose(str(error))
            return
        for packet in arrived:
            if isinstance(packet, Message):
                self._events.append(packet)
            else:
                self._take(packet, connection)

    def _take(self, packet: packets.Packet, connection: BrokerSocket) -> None:
        match packet:
            case packets.Delivered(packet_id, message):
                connection.unsent += packets.encode_acknowledgement(packet_id)
                if message is not None:
                    self._events.append(message)
            case packets.Acknowledged(packet_id, code):
                if (answered := self._in_flight.pop(packet_id, None)) is not None:
                    if code >= FIRST_FAILURE:
                        self._report_publication(answered.topic, code)
                    self._send_queued()
            case packets.LoginAnswer():
                self._logged_in(packet)
            case packets.Subscribed(codes):
                self._report_subscriptions([code for code in codes if code >= FIRST_FAILURE])
            case packets.Farewell(code):
                self._lose(reasons.words(code), code)

    def _logged_in(self, answer: packets.LoginAnswer) -> None:
        is_second_answer = self.connected
        if answer.code or is_second_answer:
            code = reasons.login_code(answer.code)
            self._lose(reasons.words(code), code)
            return
        self._note_connected()
        self._in_flight_maximum = min(answer.receive_maximum or IN_FLIGHT, 4 * IN_FLIGHT)
        self._packet_maximum = answer.packet_maximum or packets.MAX_REMAINING
        if answer.keepalive_s is not None:
            self._keepalive_s = float(answer.keepalive_s)
        if self._subscriptions:
            self._send(packets.encode_subscribe(self._next_packet_id(), self._subscriptions, self._is_5))
        # What the old connection did not acknowledge may have arrived: receivers take the first.
        for packet_id, message in list(self._in_flight.items()):
            if not self._send_message(message, packet_id, again=True):
                del self._in_flight[packet_id]
        self._send_queued()
        if self.connected:
            self._events.append(Connected("5" if self._is_5 else "3.1.1"))

    def _keep_alive(self, now: float) -> None:
        if self._socket is None:
            return
        if not self.connected:
            if now > self._login_until:
                self._lose(f"no answer to the login within {LOGIN_TIMEOUT_S:g} s")
        elif self._pinged_at is not None:
            if now - self._pinged_at >= self._keepalive_s > 0:
                self._lose("no answer to a ping")
        elif now - min(self._heard_at, self._socket.sent_at) >= self._keepalive_s > 0:
            self._pinged_at = now
            self._send(packets.PING)

    def _connect_when_due(self, timeout_s: float) -> None:
        if not self._attempt_is_due(timeout_s):
            return
        settings = self.settings
        try:
            self._socket = BrokerSocket(settings, self._tls, self._quick_ack)
        except (OSError, ValueError) as error:
            why = tls_trouble(error) if isinstance(error, OSError) else str(error)
            self._report_no_connection(why, is_tls_error(error))
            return
        self._reader = PacketReader(self._is_5)
        self._heard_at, self._pinged_at = time.monotonic(), None
        self._login_until = self._heard_at + LOGIN_TIMEOUT_S
        self._keepalive_s = float(settings.keepalive_s)
        password = settings.password.get_secret_value() if settings.password is not None else None
        login = packets.Login(self._client_id, settings.keepalive_s, settings.username, password, self._will)
        self._socket.unsent += packets.encode_login(login, self._is_5)
        self.flush()

    def _lose(self, trouble: str, code: int | None = None) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._note_lost(trouble, code)
