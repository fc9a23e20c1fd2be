"""MQTT packets of a client, versions 3.1.1 and 5: what the link sends as bytes, what it receives as values. Pure.

Section numbers are those of the OASIS standard MQTT 5.0.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from edge_agent.protocol.link import Message, Outgoing
from edge_agent.protocol.value import value

# A frame of 1024 x 1024 colour pixels takes 3 MiB, everything else of the protocol less. A broker is told so with
# MQTT 5; with 3.1.1, what is longer is passed over without being kept.
MAX_PACKET_BYTES = 4 * 2**20
MAX_REMAINING = 268_435_455  # four length bytes, section 1.5.5
_PUBLISH, _EXPIRY = 0x30, 0x02  # plain numbers of Kind and Property, for the packet that is sent most
_THREE_BYTES = struct.Struct("!BBB").pack
_ONLY_EXPIRY = struct.Struct("!BBI").pack
PING = b"\xc0\x00"
GOODBYE = b"\xe0\x00"


class Kind(IntEnum):
    """First bytes of packets, section 2.1; with the flags that they must have."""

    CONNECT, CONNACK, PUBLISH, PUBACK = 0x10, 0x20, 0x30, 0x40
    SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 0x82, 0x90, 0xA2, 0xB0
    PINGRESP, DISCONNECT = 0xD0, 0xE0


class Property(IntEnum):
    """Properties that we write or read, section 2.2.2.2; the reader passes over all others."""

    EXPIRY, RESPONSE_TOPIC, CORRELATION = 0x02, 0x08, 0x09
    KEEPALIVE, RECEIVE_MAXIMUM, PACKET_MAXIMUM = 0x13, 0x21, 0x27


@dataclass(frozen=True, slots=True)
class Login:
    """What CONNECT says of a client. `will`: published by the broker when the connection breaks."""

    client_id: str
    keepalive_s: int
    username: str | None = None
    password: str | None = None
    will: Outgoing | None = None


@dataclass(frozen=True, slots=True)
class LoginAnswer:
    """CONNACK: 0, or why not; and the broker's limits where it states them (MQTT 5)."""

    code: int
    keepalive_s: int | None = None
    receive_maximum: int | None = None
    packet_maximum: int | None = None


@value
class Delivered:
    """A message at QoS 1, to be acknowledged. `message`: None if it was longer than we take."""

    packet_id: int
    message: Message | None


@value
class Acknowledged:
    """PUBACK for a message of ours; MQTT 5 says with `code` whether it was taken."""

    packet_id: int
    code: int = 0


@dataclass(frozen=True, slots=True)
class Subscribed:
    """SUBACK: granted QoS or a failure for each filter."""

    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pong:
    """PINGRESP, or another packet that only says that the broker is there."""


@dataclass(frozen=True, slots=True)
class Farewell:
    """DISCONNECT from the broker (MQTT 5)."""

    code: int


Packet = Message | Delivered | Acknowledged | Subscribed | Pong | Farewell | LoginAnswer


def encode_login(login: Login, is_5: bool) -> bytes:
    """CONNECT with a clean session, section 3.1."""
    flags = 0x02
    rest = [_text(login.client_id)]
    if login.will is not None:
        flags |= 0x04 | login.will.qos << 3 | login.will.retain << 5
        rest += [b"\0" * is_5, _text(login.will.topic), _binary(login.will.payload)]
    if login.username is not None:
        flags |= 0x80
        rest.append(_text(login.username))
    if login.password is not None:
        flags |= 0x40
        rest.append(_text(login.password))
    properties = b"\x05" + struct.pack("!BI", Property.PACKET_MAXIMUM, MAX_PACKET_BYTES) if is_5 else b""
    start = _text("MQTT") + struct.pack("!BBH", 5 if is_5 else 4, flags, login.keepalive_s)
    return _packet(Kind.CONNECT, start + properties + b"".join(rest))


def encode_publish(message: Outgoing, is_5: bool, packet_id: int = 0, again: bool = False) -> bytes:
    r"""PUBLISH, section 3.3; `packet_id` for QoS 1, `again`: it may have arrived before.

    >>> encode_publish(Outgoing("a/b", b"hi"), is_5=True)
    b'0\x08\x00\x03a/b\x00hi'
    """
    topic, payload, qos = message.topic.encode(), message.payload, message.qos
    middle = packet_id.to_bytes(2) if qos else b""
    if is_5:
        middle += _publish_properties(message)
    first = _PUBLISH | again << 3 | qos << 1 | message.retain
    length = 2 + len(topic) + len(middle) + len(payload)
    sizes = _THREE_BYTES(first, length & 0x7F | 0x80, length >> 7) if 127 < length < 16_384 else _sizes(first, length)
    return b"".join((sizes, len(topic).to_bytes(2), topic, middle, payload))


def encode_acknowledgement(packet_id: int) -> bytes:
    """PUBACK, section 3.4; the short form is the same in both versions."""
    return b"\x40\x02" + packet_id.to_bytes(2)


def encode_subscribe(packet_id: int, filters: Sequence[tuple[str, int]], is_5: bool) -> bytes:
    """SUBSCRIBE, section 3.8. filters: (topic filter, QoS)."""
    entries = b"".join(_text(name) + bytes((qos,)) for name, qos in filters)
    return _packet(Kind.SUBSCRIBE, packet_id.to_bytes(2) + b"\0" * is_5 + entries)


def encode_unsubscribe(packet_id: int, topic_filter: str, is_5: bool) -> bytes:
    """UNSUBSCRIBE, section 3.10."""
    return _packet(Kind.UNSUBSCRIBE, packet_id.to_bytes(2) + b"\0" * is_5 + _text(topic_filter))


def _publish_properties(message: Outgoing) -> bytes:
    expiry_s = message.expiry_s
    if message.correlation is None and message.response_topic is None:  # nearly all messages
        return b"\0" if expiry_s is None else _ONLY_EXPIRY(5, _EXPIRY, expiry_s)
    properties = b"" if expiry_s is None else struct.pack("!BI", _EXPIRY, expiry_s)
    if message.response_topic is not None:
        properties += bytes((Property.RESPONSE_TOPIC,)) + _text(message.response_topic)
    if message.correlation is not None:
        properties += bytes((Property.CORRELATION,)) + _binary(message.correlation)
    return _length(len(properties)) + properties


def _packet(first: int, body: bytes) -> bytes:
    return _sizes(first, len(body)) + body


def _sizes(first: int, length: int) -> bytes:
    return bytes((first, length)) if length < 128 else bytes((first,)) + _length(length)


def _length(value: int) -> bytes:
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        out.append(byte | 0x80 * bool(value))
        if not value:
            return bytes(out)


def _text(text: str) -> bytes:
    return _binary(text.encode())


def _binary(raw: bytes) -> bytes:
    return len(raw).to_bytes(2) + raw
