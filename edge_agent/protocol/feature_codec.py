"""Features in few bytes: float32, int8 or int4 with each channel's range in the manifest. Pure.

real = low + step * code, code 0..255 (int8) or 0..15 (int4, two to a byte, the even channel in the low half); or
real = low + step * code^2, which spends the few codes of int4 where most of a ReLU's outputs are: near 0.
Deflate is used where it makes the payload shorter, and only there: the flag in the encoding byte says so.
"""

import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.errors import DecodeError

# Pooled ReLU outputs stay below a few hundred. What is ten thousand times larger is garbage, and as float32 it would
# overflow in the head: a merged frame without a number for an answer.
MAX_FEATURE = 2.0**20
DEFLATED = 0x80  # bit of the encoding byte
RAW_DEFLATE = -15  # zlib's wbits without its header and checksum: 6 bytes of 64 matter, MQTT has TCP's checksum


class PayloadEncoding(IntEnum):
    """How features stand in the payload."""

    FLOAT32 = 0
    INT8_CHANNELS = 2
    INT4_CHANNELS = 3


BITS = {PayloadEncoding.INT8_CHANNELS: 8, PayloadEncoding.INT4_CHANNELS: 4}
ENCODINGS = {bits: encoding for encoding, bits in BITS.items()}


@dataclass(frozen=True)
class ChannelRanges:
    """Each channel's smallest value and step: (width,), float32, steps positive. `square`: of squared codes."""

    low: NDArray[np.float32]
    step: NDArray[np.float32]
    square: bool = False

    def __post_init__(self) -> None:
        if self.low.ndim != 1 or self.low.shape != self.step.shape or not self.low.size:
            raise ValueError(f"ranges {self.low.shape} and {self.step.shape}, expected twice (width,)")
        if not (np.isfinite(self.low).all() and np.isfinite(self.step).all() and (self.step > 0).all()):
            raise ValueError("ranges: expected finite numbers and positive steps")

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.low.size)

    def largest(self, bits: int) -> float:
        """Largest magnitude that a code can mean."""
        last = (2**bits - 1) ** (2 if self.square else 1)
        ends = np.stack([self.low, self.low + self.step * np.float32(last)])
        return float(np.max(np.abs(ends)))


def encode_payload(
    features: NDArray[np.float32], encoding: PayloadEncoding, ranges: ChannelRanges | None = None, deflate: bool = True
) -> tuple[int, bytes]:
    r"""Encode features (width,) float32: the encoding byte and the payload.

    >>> ranges = ChannelRanges(np.zeros(3, np.float32), np.full(3, 0.5, np.float32))
    >>> encode_payload(np.array([0, 1, 9], np.float32), PayloadEncoding.INT4_CHANNELS, ranges)
    (3, b' \x0f')
    """
    if encoding == PayloadEncoding.FLOAT32:
        return int(encoding), features.astype("<f4", copy=False).tobytes()
    return pack_codes(quantize_channels(features, _given(ranges), BITS[encoding]), BITS[encoding], deflate)


def decode_payload(
    encoding_byte: int, payload: bytes, width: int, ranges: ChannelRanges | None = None
) -> NDArray[np.float32]:
    """Decode a payload to (width,) float32; DecodeError unless it is exactly one of that width."""
    if encoding_byte == PayloadEncoding.FLOAT32:
        if len(payload) != 4 * width:
            raise DecodeError(f"features: payload of {len(payload)} bytes, expected {4 * width} for width {width}")
        features = np.frombuffer(payload, "<f4").astype(np.float32)
        if not np.isfinite(features).all():
            raise DecodeError("features: not all values are finite")
        return features
    codes, _ = unpack_codes(encoding_byte, payload, width)
    if ranges is None or ranges.width != width:
        raise DecodeError(f"features: width {width}, the manifest has ranges for {ranges.width if ranges else 0}")
    return dequantize_channels(codes, ranges)


def pack_codes(codes: NDArray[np.uint8], bits: int, deflate: bool) -> tuple[int, bytes]:
    """Encoding byte and payload of codes (width,) uint8 below 2**bits; deflated if asked and shorter."""
    encoding = ENCODINGS[bits]
    raw = _pack(codes, encoding)
    packed = _deflate(raw) if deflate else raw
    return (encoding | DEFLATED, packed) if len(packed) < len(raw) else (int(encoding), raw)


def unpack_codes(encoding_byte: int, payload: bytes, width: int) -> tuple[NDArray[np.uint8], int]:
    """Codes (width,) uint8 and their bits; DecodeError unless `payload` is exactly one of that width."""
    encoding = encoding_byte & ~DEFLATED
    if encoding not in BITS:
        raise DecodeError(f"features: encoding {encoding_byte}, expected 2 or 3, or with 128 added")
    size_bytes = payload_bytes(PayloadEncoding(encoding), width)
    raw = _inflate(payload, size_bytes) if encoding_byte & DEFLATED else payload
    if len(raw) != size_bytes:
        raise DecodeError(f"features: payload of {len(raw)} bytes, expected {size_bytes} for width {width}")
    return _unpack(raw, PayloadEncoding(encoding), width), BITS[PayloadEncoding(encoding)]


def payload_bytes(encoding: PayloadEncoding, width: int) -> int:
    """Length of a payload that is not deflated.

    >>> payload_bytes(PayloadEncoding.INT4_CHANNELS, 128)
    64
    """
    return width * 4 if encoding == PayloadEncoding.FLOAT32 else (width * BITS[encoding] + 7) // 8


def quantize_channels(features: NDArray[np.float32], ranges: ChannelRanges, bits: int) -> NDArray[np.uint8]:
    """Nearest code of each feature, saturating. features: (..., width), float32 -> same shape, uint8."""
    steps = (features - ranges.low) / ranges.step
    if ranges.square:
        below = np.floor(np.sqrt(np.maximum(steps, 0)))
        codes = below + (steps > below * (below + 1) + 0.5)  # the nearer of two squares
    else:
        codes = np.rint(steps)
    limited: NDArray[np.uint8] = np.clip(np.nan_to_num(codes), 0, 2**bits - 1).astype(np.uint8)
    return limited


def dequantize_channels(codes: NDArray[np.uint8], ranges: ChannelRanges) -> NDArray[np.float32]:
    """Real features of codes. codes: (..., width), uint8 -> same shape, float32."""
    steps = codes.astype(np.float32)
    return ranges.low + ranges.step * (steps * steps if ranges.square else steps)


def _given(ranges: ChannelRanges | None) -> ChannelRanges:
    if ranges is None:
        raise ValueError("int8 and int4 channels need their ranges")
    return ranges


def _pack(codes: NDArray[np.uint8], encoding: PayloadEncoding) -> bytes:
    if encoding == PayloadEncoding.INT8_CHANNELS:
        return codes.tobytes()
    pairs = np.pad(codes, (0, codes.size % 2)).reshape(-1, 2)
    return (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8).tobytes()


def _unpack(raw: bytes, encoding: PayloadEncoding, width: int) -> NDArray[np.uint8]:
    stored = np.frombuffer(raw, np.uint8)
    if encoding == PayloadEncoding.INT8_CHANNELS:
        return stored
    codes = np.stack([stored & 15, stored >> 4], axis=1).reshape(-1)
    if width % 2 and codes[-1]:
        raise DecodeError("features: the half byte after the last channel is not 0")
    return codes[:width]


def _deflate(raw: bytes) -> bytes:
    best = raw
    # Tables of their own cost 30 bytes and more: for a few dozen bytes the fixed ones win, for many they lose.
    for strategy in (zlib.Z_FIXED, zlib.Z_DEFAULT_STRATEGY):
        compressor = zlib.compressobj(9, zlib.DEFLATED, RAW_DEFLATE, 9, strategy)
        packed = compressor.compress(raw) + compressor.flush()
        best = min(best, packed, key=len)
    return best


def _inflate(payload: bytes, size_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(RAW_DEFLATE)
    try:
        raw = decompressor.decompress(payload, size_bytes + 1)  # one more than allowed shows an overlong one
    except zlib.error as error:
        raise DecodeError(f"features: payload does not inflate: {error}") from None
    if not decompressor.eof or decompressor.unused_data:
        raise DecodeError(f"features: deflated payload is cut, overlong or followed by more than {size_bytes} bytes")
    return raw
