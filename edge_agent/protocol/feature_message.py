"""A student's features of one frame: bytes <-> FeatureMessage. docs/protocol.md, section 4."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.errors import DecodeError, UnsupportedVersionError
from edge_agent.protocol.feature_codec import (
    BITS,
    DEFLATED,
    MAX_FEATURE,
    ChannelRanges,
    dequantize_channels,
    pack_codes,
    unpack_codes,
)
from edge_agent.protocol.frame_message import MAX_FRAME_ID
from edge_agent.protocol.quantization import INT8_MAX, INT8_MIN, dequantize
from edge_agent.protocol.value import value

SCALAR_VERSION = 1  # one scale for all features, in the message
CHANNELS_VERSION = 2  # ranges per channel, in the manifest
# version, encoding, width, frame_id, student_us, agent_us, scale, zero_point, 3 zero bytes
_HEADER = struct.Struct("<BBHQIIfb3s")
_CHANNELS_HEADER = struct.Struct("<BBHQII")  # without what the manifest says
HEADER_BYTES = _HEADER.size
CHANNELS_HEADER_BYTES = _CHANNELS_HEADER.size
MAX_MICROSECONDS = 2**32 - 1
_RESERVED = b"\0\0\0"
_INT8_VALUES = np.dtype(np.int8)
_VALUES = (_INT8_VALUES, np.dtype(np.uint8), np.dtype(np.float32))
MIN_SCALE = 2.0**-126  # the smallest normal float32
MAX_SCALE = 2.0**12  # no int8 lies farther than 255 from a zero_point


class FeatureEncoding(IntEnum):
    """How the features stand in a message of version 1."""

    FLOAT32 = 0  # scale and zero_point are 0
    INT8 = 1  # real = scale * (value - zero_point)


_INT8, _FLOAT32 = int(FeatureEncoding.INT8), int(FeatureEncoding.FLOAT32)
_ITEM_BYTES: dict[int, int] = {FeatureEncoding.FLOAT32: 4, FeatureEncoding.INT8: 1}


@value
class FeatureMessage:
    """`values`: (width,), float32; int8 with `scale` and `zero_point`; or uint8 codes of `bits` with `ranges`.

    `student_us`: the interpreter's time; `agent_us`: from the frame's arrival at the agent to this message,
    queue and interpreter included. Both in microseconds of the agent's own clock: no clocks need to agree.
    """

    frame_id: int
    values: NDArray[np.float32] | NDArray[np.int8] | NDArray[np.uint8]
    student_us: int
    agent_us: int
    scale: float = 0.0
    zero_point: int = 0
    bits: int = 0  # of codes: 8 or 4
    deflate: bool = False  # codes: deflated where that is shorter
    ranges: ChannelRanges | None = None  # of codes, from the manifest: they do not travel

    @property
    def features(self) -> NDArray[np.float32]:
        """Real features: (width,), float32. Codes without ranges mean nothing: NaN."""
        kind = self.values.dtype
        if kind == _INT8_VALUES:
            return dequantize(cast("NDArray[np.int8]", self.values), self.scale, self.zero_point)
        if kind == np.uint8:
            if self.ranges is None:
                return np.full(self.values.shape, np.nan, np.float32)
            return dequantize_channels(cast("NDArray[np.uint8]", self.values), self.ranges)
        return cast("NDArray[np.float32]", self.values)

    def with_ranges(self, ranges: ChannelRanges | None, bits: int) -> "FeatureMessage":
        """Give codes the meaning that the manifest says; DecodeError if they are not what it says."""
        if not self.bits:
            return self
        if ranges is None or self.bits != bits or self.values.size != ranges.width:
            there = f"{ranges.width} ranges of {bits} bits" if ranges is not None else "no ranges"
            raise DecodeError(f"features: {self.values.size} codes of {self.bits} bits, the manifest has {there}")
        return FeatureMessage(
            self.frame_id, self.values, self.student_us, self.agent_us, 0.0, 0, bits, self.deflate, ranges
        )


def real_features(messages: Sequence[FeatureMessage]) -> list[NDArray[np.float32]]:
    """`features` of each, to the bit; computed together where the messages are alike, as those of one student are."""
    first = messages[0]
    alike = (first.values.dtype, first.values.shape, first.scale, first.zero_point, first.ranges)
    if len(messages) == 1 or any(
        (other.values.dtype, other.values.shape, other.scale, other.zero_point, other.ranges) != alike
        for other in messages
    ):
        return [message.features for message in messages]
    values = np.concatenate([message.values for message in messages]).reshape(len(messages), -1)
    return list(replace(first, values=values).features)


def encode_features(message: FeatureMessage) -> bytes:
    """Bytes of a feature message; ValueError for values that the layout can't hold."""
    values = message.values
    kind = values.dtype
    if values.ndim != 1 or not 0 < values.size < 2**16 or kind not in _VALUES:
        raise ValueError(f"features {kind} {values.shape}: expected int8, uint8 or float32, (1 to 65535,)")
    if kind == np.uint8:
        return _encode_codes(message, values.view(np.uint8))
    encoding = _INT8 if kind == _INT8_VALUES else _FLOAT32
    _check_header(message, encoding)
    header = _HEADER.pack(
        SCALAR_VERSION,
        encoding,
        values.size,
        message.frame_id,
        min(message.student_us, MAX_MICROSECONDS),
        min(message.agent_us, MAX_MICROSECONDS),
        message.scale,
        message.zero_point,
        _RESERVED,
    )
    return header + (values if encoding == _INT8 else values.astype("<f4", copy=False)).tobytes()


def _encode_codes(message: FeatureMessage, codes: NDArray[np.uint8]) -> bytes:
    _check_frame(message)
    if message.bits not in BITS.values() or message.scale != 0 or message.zero_point != 0:
        raise ValueError(f"codes of {message.bits} bits: expected 8 or 4, without scale and zero_point")
    if int(codes.max()) >= 2**message.bits:
        raise ValueError(f"code {codes.max()}: expected less than {2**message.bits}")
    encoding, payload = pack_codes(codes, message.bits, message.deflate)
    times_us = (min(us, MAX_MICROSECONDS) for us in (message.student_us, message.agent_us))
    return _CHANNELS_HEADER.pack(CHANNELS_VERSION, encoding, codes.size, message.frame_id, *times_us) + payload


def _check_frame(message: FeatureMessage) -> None:
    if not 0 <= message.frame_id <= MAX_FRAME_ID:
        raise ValueError(f"frame_id {message.frame_id}: expected 0 to {MAX_FRAME_ID}")
    if message.student_us < 0 or message.agent_us < 0:
        raise ValueError(f"times {message.student_us} and {message.agent_us} us: expected none below 0")


def _check_header(message: FeatureMessage, encoding: int) -> None:
    _check_frame(message)
    if message.bits or message.deflate:
        raise ValueError("bits and deflate are for codes alone")
    if encoding == _INT8:
        if not (MIN_SCALE <= message.scale <= MAX_SCALE and INT8_MIN <= message.zero_point <= INT8_MAX):
            raise ValueError(
                f"scale {message.scale}, zero_point {message.zero_point}: expected a positive float, an int8"
            )
    elif message.scale != 0 or message.zero_point != 0:
        raise ValueError("float32 features have neither scale nor zero_point")


def decode_features(payload: bytes) -> FeatureMessage:
    """Read a feature message; its values are a read-only view of `payload`, or codes that still need their ranges."""
    if not payload:
        raise DecodeError("features: empty message")
    if payload[0] == CHANNELS_VERSION:
        return _decode_codes(payload)
    if payload[0] != SCALAR_VERSION:
        raise UnsupportedVersionError(f"features: version {payload[0]}, this program speaks 1 and 2")
    if len(payload) < HEADER_BYTES:
        raise DecodeError(f"features: {len(payload)} bytes, expected a header of {HEADER_BYTES}")
    _, encoding, width, frame_id, student_us, agent_us, scale, zero_point, reserved = _HEADER.unpack_from(payload)
    if frame_id > MAX_FRAME_ID or reserved != _RESERVED or width == 0:
        raise DecodeError(f"features: header of frame {frame_id} is not of version 1")
    if encoding == _INT8 and MIN_SCALE <= scale <= MAX_SCALE and len(payload) == HEADER_BYTES + width:
        codes = np.frombuffer(payload, _INT8_VALUES, offset=HEADER_BYTES)
        return FeatureMessage(frame_id, codes, student_us, agent_us, scale, zero_point)
    values = _decode_values(payload, encoding, width)
    _check_quantization(encoding, scale, zero_point, values)
    return FeatureMessage(frame_id, values, student_us, agent_us, scale, zero_point)


def _decode_codes(payload: bytes) -> FeatureMessage:
    if len(payload) < CHANNELS_HEADER_BYTES:
        raise DecodeError(f"features: {len(payload)} bytes, expected a header of {CHANNELS_HEADER_BYTES}")
    _, encoding, width, frame_id, student_us, agent_us = _CHANNELS_HEADER.unpack_from(payload)
    if frame_id > MAX_FRAME_ID or width == 0:
        raise DecodeError(f"features: header of frame {frame_id} is not of version 2")
    codes, bits = unpack_codes(encoding, payload[CHANNELS_HEADER_BYTES:], width)
    return FeatureMessage(frame_id, codes, student_us, agent_us, bits=bits, deflate=encoding >= DEFLATED)


def _decode_values(payload: bytes, encoding: int, width: int) -> NDArray[np.float32] | NDArray[np.int8]:
    item_bytes = _ITEM_BYTES.get(encoding)
    if item_bytes is None:
        raise DecodeError(f"features: encoding {encoding}, expected 0 or 1")
    if len(payload) != HEADER_BYTES + width * item_bytes:
        raise DecodeError(
            f"features: {len(payload)} bytes, expected {HEADER_BYTES + width * item_bytes} for width {width}"
        )
    if encoding == FeatureEncoding.INT8:
        return np.frombuffer(payload, np.int8, offset=HEADER_BYTES)
    return np.frombuffer(payload, np.dtype("<f4"), offset=HEADER_BYTES).astype(np.float32, copy=False)


def _check_quantization(
    encoding: int, scale: float, zero_point: int, values: NDArray[np.float32] | NDArray[np.int8]
) -> None:
    if encoding == FeatureEncoding.INT8:
        if not MIN_SCALE <= scale <= MAX_SCALE:
            raise DecodeError(f"features: scale {scale}, expected {MIN_SCALE:.3g} to {MAX_SCALE:g}")
    elif scale != 0 or zero_point != 0:
        raise DecodeError("features: scale and zero_point of float32 features are not 0")
    elif not (np.abs(values) <= MAX_FEATURE).all():
        raise DecodeError(f"features: not all values are numbers up to {MAX_FEATURE:.0f}")
