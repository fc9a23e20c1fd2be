"""A student's features of one frame: bytes <-> FeatureMessage. docs/protocol.md, section 4."""

import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.errors import DecodeError, UnsupportedVersionError
from edge_agent.protocol.frame_message import MAX_FRAME_ID
from edge_agent.protocol.quantization import INT8_MAX, INT8_MIN, dequantize

VERSION = 1
# version, encoding, width, frame_id, student_us, agent_us, scale, zero_point, 3 zero bytes
_HEADER = struct.Struct("<BBHQIIfb3s")
HEADER_BYTES = _HEADER.size
MAX_MICROSECONDS = 2**32 - 1
_RESERVED = b"\0\0\0"
# Pooled ReLU outputs stay below a few hundred. What is ten thousand times larger is garbage, and as float32 it would
# overflow in the head: a merged frame without a number for an answer.
MAX_FEATURE = 2.0**20
MIN_SCALE = 2.0**-126  # the smallest normal float32
MAX_SCALE = 2.0**12  # no int8 lies farther than 255 from a zero_point


class FeatureEncoding(IntEnum):
    """How the features stand in the message."""

    FLOAT32 = 0  # scale and zero_point are 0
    INT8 = 1  # real = scale * (value - zero_point)


_ITEM_BYTES: dict[int, int] = {FeatureEncoding.FLOAT32: 4, FeatureEncoding.INT8: 1}


@dataclass(frozen=True, slots=True)
class FeatureMessage:
    """`values`: (width,), float32, or int8 with `scale` and `zero_point`.

    `student_us`: the interpreter's time; `agent_us`: from the frame's arrival at the agent to this message,
    queue and interpreter included. Both in microseconds of the agent's own clock: no clocks need to agree.
    """

    frame_id: int
    values: NDArray[np.float32] | NDArray[np.int8]
    student_us: int
    agent_us: int
    scale: float = 0.0
    zero_point: int = 0

    @property
    def features(self) -> NDArray[np.float32]:
        """Real features: (width,), float32."""
        if self.values.dtype == np.int8:
            return dequantize(self.values.view(np.int8), self.scale, self.zero_point)
        return self.values.view(np.float32)


def encode_features(message: FeatureMessage) -> bytes:
    """Bytes of a feature message; ValueError for values that the layout can't hold."""
    values = message.values
    if values.ndim != 1 or not 0 < values.size < 2**16 or values.dtype not in (np.int8, np.float32):
        raise ValueError(f"features {values.dtype} {values.shape}: expected int8 or float32, (1 to 65535,)")
    encoding = FeatureEncoding.INT8 if values.dtype == np.int8 else FeatureEncoding.FLOAT32
    _check_header(message, encoding)
    header = _HEADER.pack(
        VERSION,
        encoding,
        values.size,
        message.frame_id,
        min(message.student_us, MAX_MICROSECONDS),
        min(message.agent_us, MAX_MICROSECONDS),
        message.scale,
        message.zero_point,
        _RESERVED,
    )
    return header + values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _check_header(message: FeatureMessage, encoding: FeatureEncoding) -> None:
    if not 0 <= message.frame_id <= MAX_FRAME_ID:
        raise ValueError(f"frame_id {message.frame_id}: expected 0 to {MAX_FRAME_ID}")
    if message.student_us < 0 or message.agent_us < 0:
        raise ValueError(f"times {message.student_us} and {message.agent_us} us: expected none below 0")
    if encoding == FeatureEncoding.INT8:
        if not (MIN_SCALE <= message.scale <= MAX_SCALE and INT8_MIN <= message.zero_point <= INT8_MAX):
            raise ValueError(
                f"scale {message.scale}, zero_point {message.zero_point}: expected a positive float, an int8"
            )
    elif message.scale != 0 or message.zero_point != 0:
        raise ValueError("float32 features have neither scale nor zero_point")


def decode_features(payload: bytes) -> FeatureMessage:
    """Read a feature message; its values are a read-only view of `payload`."""
    if not payload:
        raise DecodeError("features: empty message")
    if payload[0] != VERSION:
        raise UnsupportedVersionError(f"features: version {payload[0]}, this program speaks {VERSION}")
    if len(payload) < HEADER_BYTES:
        raise DecodeError(f"features: {len(payload)} bytes, expected a header of {HEADER_BYTES}")
    _, encoding, width, frame_id, student_us, agent_us, scale, zero_point, reserved = _HEADER.unpack_from(payload)
    if frame_id > MAX_FRAME_ID or reserved != _RESERVED or width == 0:
        raise DecodeError(f"features: header of frame {frame_id} is not of version {VERSION}")
    values = _decode_values(payload, encoding, width)
    _check_quantization(encoding, scale, zero_point, values)
    return FeatureMessage(frame_id, values, student_us, agent_us, scale, zero_point)


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
