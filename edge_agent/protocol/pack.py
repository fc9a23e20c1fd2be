"""Several messages of one topic in one: bytes <-> messages. docs/protocol.md, section 5a.

What a broker and a receiver do for a message costs more than what they do for its bytes.
"""

import struct
from collections.abc import Iterable, Iterator

from edge_agent.protocol.errors import DecodeError, UnsupportedVersionError

# No version of a binary layout, and no beginning of UTF-8 JSON: a pack is told from what it holds by its first byte.
MARK = 0x80
VERSION = 1
MAX_MESSAGES = 64  # as many as our clients have in flight
# The longest that we make: what else a connection carries waits for no more than twenty frames of 32 x 32.
MAX_PACK_BYTES = 65_536
_HEADER = struct.Struct("<BBH")  # mark, version, number of messages; then the length of each as uint32
HEADER_BYTES = _HEADER.size
LENGTH_BYTES = 4


def is_pack(payload: bytes) -> bool:
    """Whether a payload is more than one message."""
    return payload[:1] == b"\x80"


def encode_pack(messages: list[bytes]) -> bytes:
    """Bytes of a pack; ValueError for fewer than two messages, too many, an empty one or a pack among them."""
    if not 2 <= len(messages) <= MAX_MESSAGES:
        raise ValueError(f"{len(messages)} messages: expected 2 to {MAX_MESSAGES}")
    if any(not message or is_pack(message) for message in messages):
        raise ValueError("expected messages that are neither empty nor packs")
    lengths = struct.pack(f"<{len(messages)}I", *map(len, messages))
    return b"".join((_HEADER.pack(MARK, VERSION, len(messages)), lengths, *messages))


def decode_pack(payload: bytes) -> list[bytes]:
    """The messages of a payload, in their order; what is no pack is one message. ProtocolError for a broken pack."""
    if not is_pack(payload):
        return [payload]
    if len(payload) < HEADER_BYTES:
        raise DecodeError(f"pack: {len(payload)} bytes, expected a header of {HEADER_BYTES}")
    _, version, count = _HEADER.unpack_from(payload)
    if version != VERSION:
        raise UnsupportedVersionError(f"pack: version {version}, this program speaks {VERSION}")
    start = HEADER_BYTES + LENGTH_BYTES * count
    if not 2 <= count <= MAX_MESSAGES or len(payload) < start:
        raise DecodeError(f"pack: {len(payload)} bytes, {count} messages; expected 2 to {MAX_MESSAGES}")
    lengths = struct.unpack_from(f"<{count}I", payload, HEADER_BYTES)
    if start + sum(lengths) != len(payload) or not all(lengths):
        raise DecodeError(f"pack: {len(payload)} bytes, expected {start} and {sum(lengths)} of messages, none empty")
    messages = []
    for length in lengths:
        messages.append(payload[start : start + length])
        start += length
    if any(map(is_pack, messages)):
        raise DecodeError("pack: one of its messages is a pack")
    return messages


def packed(messages: Iterable[bytes]) -> Iterator[bytes]:
    """Payloads that carry `messages` in their order: packs as long as they may be, or one alone.

    >>> [len(decode_pack(payload)) for payload in packed([b"frame"] * 65)]
    [64, 1]
    """
    together: list[bytes] = []
    size_bytes = HEADER_BYTES
    for message in messages:
        added_bytes = LENGTH_BYTES + len(message)
        if together and (len(together) == MAX_MESSAGES or size_bytes + added_bytes > MAX_PACK_BYTES):
            yield _together(together)
            together, size_bytes = [], HEADER_BYTES
        together.append(message)
        size_bytes += added_bytes
    if together:
        yield _together(together)


def _together(messages: list[bytes]) -> bytes:
    return messages[0] if len(messages) == 1 else encode_pack(messages)
