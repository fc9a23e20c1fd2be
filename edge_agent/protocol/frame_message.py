"""One image to classify: bytes <-> FrameMessage. docs/protocol.md, section 3."""

import struct
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.errors import DecodeError, UnsupportedVersionError
from edge_agent.protocol.value import value

VERSION = 1
# version, encoding, channels, flags, height, width, frame_id, captured_at_us
_HEADER = struct.Struct("<BBBBHHQQ")
HEADER_BYTES = _HEADER.size
_FLAG_LIVE = 0x01
MAX_SIDE = 1024  # no student of this project reads larger images, and 3 MiB is a packet every broker takes
# JSON consumers (browsers, Node-RED) read frame ids as doubles, exact up to 2**53.
MAX_FRAME_ID = 2**53 - 1


class FrameEncoding(IntEnum):
    """How the pixels stand in the message."""

    RAW = 0  # uint8, height x width x channels, row by row


_RAW = int(FrameEncoding.RAW)


@value
class FrameMessage:
    """`image`: (height, width, channels), uint8, 1 or 3 channels (RGB).

    `frame_id` grows from frame to frame of a source, also across its restarts.
    `live` frames may be skipped for newer ones; others are answered in order.
    """

    frame_id: int
    captured_at_us: int
    image: NDArray[np.uint8]
    live: bool = False


def encode_frame(frame: FrameMessage) -> bytes:
    """Bytes of a frame; ValueError for an image that the layout can't hold."""
    image = frame.image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"image {image.dtype} {image.shape}: expected uint8 (height, width, 1 or 3)")
    height, width, channels = image.shape
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ValueError(f"image {height} x {width}: expected sides of 1 to {MAX_SIDE} pixels")
    if not 0 <= frame.frame_id <= MAX_FRAME_ID:
        raise ValueError(f"frame_id {frame.frame_id}: expected 0 to {MAX_FRAME_ID}")
    if not 0 <= frame.captured_at_us < 2**64:
        raise ValueError(f"captured_at_us {frame.captured_at_us}: expected 0 to 2**64 - 1")
    flags = _FLAG_LIVE if frame.live else 0
    header = _HEADER.pack(
        VERSION, FrameEncoding.RAW, channels, flags, height, width, frame.frame_id, frame.captured_at_us
    )
    return header + image.tobytes()


def decode_frame(payload: bytes) -> FrameMessage:
    """Read a frame; its image is a read-only view of `payload`, not a copy."""
    if not payload:
        raise DecodeError("frame: empty message")
    if payload[0] != VERSION:
        raise UnsupportedVersionError(f"frame: version {payload[0]}, this program speaks {VERSION}")
    if len(payload) < HEADER_BYTES:
        raise DecodeError(f"frame: {len(payload)} bytes, expected a header of {HEADER_BYTES}")
    _, encoding, channels, flags, height, width, frame_id, captured_at_us = _HEADER.unpack_from(payload)
    if encoding != _RAW:
        raise DecodeError(f"frame: encoding {encoding}, expected {_RAW}")
    if channels not in (1, 3) or not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
        raise DecodeError(f"frame: {height} x {width} x {channels}, expected sides up to {MAX_SIDE}, 1 or 3 channels")
    if flags & ~_FLAG_LIVE or frame_id > MAX_FRAME_ID:
        raise DecodeError(f"frame: flags {flags:#x} and frame id {frame_id} are not of version {VERSION}")
    expected_bytes = HEADER_BYTES + height * width * channels
    if len(payload) != expected_bytes:
        raise DecodeError(f"frame: {len(payload)} bytes, expected {expected_bytes} for {height} x {width} x {channels}")
    image = np.frombuffer(payload, np.uint8, offset=HEADER_BYTES).reshape(height, width, channels)
    return FrameMessage(frame_id, captured_at_us, image, bool(flags & _FLAG_LIVE))
