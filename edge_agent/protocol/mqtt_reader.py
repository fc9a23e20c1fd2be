"""Cuts the stream from a broker into MQTT packets. Pure; section numbers are those of the OASIS standard MQTT 5.0.

The hot packet is PUBLISH at QoS 0: it is read in one step, without tables of names or a callback (docs/decisions/0014).
"""

from edge_agent.protocol.errors import DecodeError
from edge_agent.protocol.link import Message
from edge_agent.protocol.mqtt_packets import (
    MAX_PACKET_BYTES,
    Acknowledged,
    Delivered,
    Farewell,
    Kind,
    LoginAnswer,
    Packet,
    Pong,
    Property,
    Subscribed,
)

# Topics seen are kept as text: each frame brings the same ones again.
_KEPT_TOPICS = 4096
_PUBLISH, _PUBACK, _EXPIRY = 0x30, 0x40, 0x02  # Kind and Property as plain numbers: every message is compared
_FROM_BROKER = frozenset(
    int(kind) for kind in (Kind.CONNACK, Kind.PUBACK, Kind.SUBACK, Kind.UNSUBACK, Kind.PINGRESP, Kind.DISCONNECT)
)
_FIXED_SIZES = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
}
_STRINGS = frozenset((0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F))
_SUBSCRIPTION_ID, _USER_PROPERTY = 0x0B, 0x26


class PacketReader:
    """Cuts the stream from a broker into packets; DecodeError if it is none of MQTT.

    A packet that is not yet whole is kept, at most `max_bytes` of it; longer messages are passed over.
    """

    def __init__(self, is_5: bool, max_bytes: int = MAX_PACKET_BYTES) -> None:
        self.oversize = 0  # messages passed over
        self._is_5 = is_5
        self._max_bytes = max_bytes
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._wanted_bytes = 2  # before so many are there, looking again is no use
        self._skip_bytes = 0
        self._topics: dict[bytes, str] = {}

    def feed(self, chunk: bytes) -> list[Packet]:
        """Take what the socket gave; return the packets that are whole now."""
        if self._skip_bytes:
            skipped = min(self._skip_bytes, len(chunk))
            self._skip_bytes -= skipped
            chunk = chunk[skipped:]
        if self._kept:
            self._kept.append(chunk)
            self._kept_bytes += len(chunk)
            if self._kept_bytes < self._wanted_bytes:
                return []
            chunk = b"".join(self._kept)
        packets: list[Packet] = []
        used = self._cut(chunk, packets)
        rest = chunk[used:]
        self._kept, self._kept_bytes = ([rest], len(rest)) if rest else ([], 0)
        return packets

    def _cut(self, stream: bytes, packets: list[Packet]) -> int:
        """Append the whole packets at the start of `stream`; return how many bytes they take."""
        position, end = 0, len(stream)
        append, published, max_bytes = packets.append, self._published, self._max_bytes
        while end - position >= 2:
            first, length, start = stream[position], stream[position + 1], position + 2
            if length & 0x80 and start < end and stream[start] < 0x80:  # two bytes, which most messages need
                length, start = length & 0x7F | stream[start] << 7, start + 1
            elif length & 0x80:
                found = _read_varint(stream, position + 1)
                if found is None:
                    break
                length, start = found
            stop = start + length
            if first == _PUBLISH and stop <= end and length <= max_bytes:
                append(published(stream, start, stop, first))
                position = stop
                continue
            if length > max_bytes:
                used = self._pass_over(stream, start, length, first, packets)
                if used is None:
                    self._wanted_bytes = end - position + 1
                    return position
                return used
            _expect(first)
            if stop > end:
                self._wanted_bytes = stop - position
                return position
            append(self._whole(stream, start, stop, first))
            position = stop
        self._wanted_bytes = 2
        return position

    def _whole(self, stream: bytes, start: int, stop: int, first: int) -> Packet:
        if first & 0xF0 == _PUBLISH:
            return self._published(stream, start, stop, first)
        return _other(first, stream[start:stop], self._is_5)

    def _published(self, stream: bytes, position: int, stop: int, first: int) -> Message | Delivered:
        topic_end = position + 2 + (stream[position] << 8) + stream[position + 1] if stop - position >= 2 else stop + 1
        qos = first >> 1 & 3
        payload_start = topic_end + 2 if qos else topic_end
        if payload_start + self._is_5 > stop or qos > 1:
            raise DecodeError("mqtt: malformed PUBLISH")
        raw_topic = stream[position + 2 : topic_end]
        topic = self._topics.get(raw_topic) or self._new_topic(raw_topic)
        response_topic = correlation = None
        if self._is_5:
            size = stream[payload_start]
            # Nothing, or an expiry alone, is what nearly all messages have.
            if size == 0 or (size == 5 and payload_start + 5 < stop and stream[payload_start + 1] == _EXPIRY):
                payload_start += 1 + size
            else:
                properties, payload_start = _read_properties(stream, payload_start, stop)
                reply, mark = properties.get(Property.RESPONSE_TOPIC), properties.get(Property.CORRELATION)
                response_topic = _decoded(reply) if isinstance(reply, bytes) else None
                correlation = mark if isinstance(mark, bytes) else None
        message = Message(topic, stream[payload_start:stop], bool(first & 1), response_topic, correlation)
        return Delivered(int.from_bytes(stream[topic_end : topic_end + 2]), message) if qos else message

    def _pass_over(self, stream: bytes, start: int, length: int, first: int, packets: list[Packet]) -> int | None:
        """Forget the packet at `start`, but acknowledge a message; None: its packet id is not there yet."""
        if first & 0xF0 != _PUBLISH:
            raise DecodeError(f"mqtt: packet of {length} bytes")
        if first & 0x06:
            topic_end = start + 2 + int.from_bytes(stream[start : start + 2])
            if len(stream) < start + 2 or len(stream) < topic_end + 2:
                return None
            packets.append(Delivered(int.from_bytes(stream[topic_end : topic_end + 2]), None))
        self.oversize += 1
        here = min(length, len(stream) - start)
        self._skip_bytes = length - here
        self._wanted_bytes = 2
        return start + here + (self._cut(stream[start + here :], packets) if start + here < len(stream) else 0)

    def _new_topic(self, raw: bytes) -> str:
        topic = _decoded(raw)
        if len(self._topics) >= _KEPT_TOPICS:
            self._topics.clear()
        self._topics[raw] = topic
        return topic


def _expect(first: int) -> None:
    if first & 0xF0 != _PUBLISH and first not in _FROM_BROKER:
        raise DecodeError(f"mqtt: unexpected packet {first:#x}")


def _other(first: int, body: bytes, is_5: bool) -> Packet:
    kind = first & 0xF0
    try:
        if kind == _PUBACK:
            return Acknowledged(body[0] << 8 | body[1], body[2] if is_5 and len(body) > 2 else 0)
        if kind == Kind.CONNACK:
            return _login_answer(body, is_5)
        if kind == Kind.SUBACK:
            start = _read_properties(body, 2, len(body))[1] if is_5 else 2
            return Subscribed(tuple(body[start:]))
        if kind == Kind.DISCONNECT and is_5:
            return Farewell(body[0] if body else 0)
    except IndexError:
        raise DecodeError(f"mqtt: packet {first:#x} of {len(body)} bytes is too short") from None
    return Pong()


def _login_answer(body: bytes, is_5: bool) -> LoginAnswer:
    code = body[1]
    if not is_5 or len(body) < 3:  # an old broker refuses MQTT 5 with the short form
        return LoginAnswer(code)
    properties, _ = _read_properties(body, 2, len(body))
    numbers = {key: value for key, value in properties.items() if isinstance(value, int)}
    return LoginAnswer(
        code,
        numbers.get(Property.KEEPALIVE),
        numbers.get(Property.RECEIVE_MAXIMUM),
        numbers.get(Property.PACKET_MAXIMUM),
    )


def _read_properties(stream: bytes, position: int, stop: int) -> tuple[dict[int, int | bytes], int]:
    """Properties by identifier, and the position behind them; section 2.2.2."""
    found = _read_varint(stream[:stop], position)
    if found is None or found[1] + found[0] > stop:
        raise DecodeError("mqtt: properties are cut")
    size, position = found
    end = position + size
    properties: dict[int, int | bytes] = {}
    while position < end:
        key, position = stream[position], position + 1
        if key in _FIXED_SIZES:
            value: int | bytes = int.from_bytes(stream[position : position + _FIXED_SIZES[key]])
            position += _FIXED_SIZES[key]
        elif key in _STRINGS:
            value, position = _read_binary(stream, position)
        elif key == _USER_PROPERTY:
            _, position = _read_binary(stream, position)
            value, position = _read_binary(stream, position)
        elif key == _SUBSCRIPTION_ID:
            number = _read_varint(stream[:end], position)
            if number is None:
                raise DecodeError("mqtt: properties are cut")
            value, position = number
        else:
            raise DecodeError(f"mqtt: unknown property {key:#x}")
        properties[key] = value
    if position != end:
        raise DecodeError("mqtt: properties are cut")
    return properties, end


def _read_binary(stream: bytes, position: int) -> tuple[bytes, int]:
    start = position + 2
    stop = start + int.from_bytes(stream[position:start])
    return stream[start:stop], stop


def _read_varint(stream: bytes, position: int) -> tuple[int, int] | None:
    """A number of seven bits a byte and the position behind it, section 1.5.5; None if it is cut."""
    value = 0
    for shift in range(0, 28, 7):
        if position >= len(stream):
            return None
        byte = stream[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
    raise DecodeError("mqtt: a length of more than four bytes")


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DecodeError("mqtt: a topic is not UTF-8") from None
