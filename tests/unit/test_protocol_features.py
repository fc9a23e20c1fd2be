"""Features: int8 and float32 survive the trip, everything else is refused, nothing overflows in the head."""

import struct
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent.protocol.errors import DecodeError, ProtocolError, UnsupportedVersionError
from edge_agent.protocol.feature_codec import ChannelRanges
from edge_agent.protocol.feature_message import (
    CHANNELS_HEADER_BYTES,
    HEADER_BYTES,
    MAX_FEATURE,
    MAX_MICROSECONDS,
    MAX_SCALE,
    MIN_SCALE,
    FeatureMessage,
    decode_features,
    encode_features,
)
from edge_agent.protocol.frame_message import MAX_FRAME_ID
from edge_agent.protocol.quantization import dequantize, quantize

frame_ids = st.integers(0, MAX_FRAME_ID)
microseconds = st.integers(0, MAX_MICROSECONDS)
scales = st.floats(MIN_SCALE, MAX_SCALE, width=32)
zero_points = st.integers(-128, 127)
int8_messages = st.builds(
    FeatureMessage, frame_ids, arrays(np.int8, st.integers(1, 40)), microseconds, microseconds, scales, zero_points
)
float_messages = st.builds(
    FeatureMessage,
    frame_ids,
    arrays(np.float32, st.integers(1, 40), elements=st.floats(-MAX_FEATURE, MAX_FEATURE, width=32)),
    microseconds,
    microseconds,
)


@st.composite
def code_messages(draw: st.DrawFn, *, deflate: bool | None = None) -> FeatureMessage:
    bits = draw(st.sampled_from([4, 8]))
    codes = draw(arrays(np.uint8, st.integers(1, 40), elements=st.integers(0, 2**bits - 1)))
    deflated = draw(st.booleans()) if deflate is None else deflate
    return FeatureMessage(draw(frame_ids), codes, draw(microseconds), draw(microseconds), bits=bits, deflate=deflated)


scalar_messages = int8_messages | float_messages
messages = scalar_messages | code_messages()


def all_but_values(message: FeatureMessage) -> list[object]:
    """Arrays have no single truth value, which Python 3.13 asks them for."""
    return [getattr(message, field.name) for field in fields(message) if field.name != "values"]


@given(scalar_messages)
def test_round_trip(message: FeatureMessage) -> None:
    payload = encode_features(message)
    assert len(payload) == HEADER_BYTES + message.values.nbytes
    decoded = decode_features(payload)
    assert decoded.values.dtype == message.values.dtype
    assert np.array_equal(decoded.values, message.values)
    assert all_but_values(decoded) == all_but_values(message)
    assert encode_features(decoded) == payload


@given(code_messages())
def test_codes_round_trip(message: FeatureMessage) -> None:
    payload = encode_features(message)
    raw_bytes = -(-message.values.size * message.bits // 8)
    assert len(payload) <= CHANNELS_HEADER_BYTES + raw_bytes
    decoded = decode_features(payload)
    assert np.array_equal(decoded.values, message.values)
    assert decoded.bits == message.bits
    assert decoded.deflate == (len(payload) < CHANNELS_HEADER_BYTES + raw_bytes)
    assert encode_features(decoded) == payload


def ranges_of(width: int) -> ChannelRanges:
    return ChannelRanges(np.linspace(-1, 0, width, dtype=np.float32), np.full(width, 0.5, np.float32))


def test_codes_get_their_meaning_from_the_manifest() -> None:
    codes = FeatureMessage(1, np.array([0, 3], np.uint8), 1, 1, bits=4)
    assert np.isnan(codes.features).all()
    assert codes.with_ranges(ranges_of(2), 4).features.tolist() == [-1.0, 1.5]
    for ranges, bits in ((ranges_of(3), 4), (ranges_of(2), 8), (None, 4)):
        with pytest.raises(DecodeError, match="2 codes of 4 bits, the manifest has"):
            codes.with_ranges(ranges, bits)
    scalar = FeatureMessage(1, np.array([1], np.int8), 1, 1, 0.5, 0)
    assert scalar.with_ranges(ranges_of(2), 4) is scalar


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 5},
        {"bits": 0},
        {"scale": 1.0},
        {"zero_point": 1},
        {"values": np.array([16], np.uint8)},
        {"frame_id": -1},
    ],
)
def test_codes_outside_the_layout_do_not_encode(change: dict[str, Any]) -> None:
    message = FeatureMessage(1, np.array([1], np.uint8), 1, 1, bits=4)
    with pytest.raises(ValueError, match="expected"):
        encode_features(replace(message, **change))


def test_bits_are_for_codes_alone() -> None:
    with pytest.raises(ValueError, match="codes alone"):
        encode_features(FeatureMessage(1, np.array([1], np.int8), 1, 1, 0.5, 0, bits=8))


@given(st.binary(max_size=60), st.sampled_from([0x82, 0x83]), st.integers(1, 200))
def test_any_stream_said_to_be_deflated_is_refused_or_exactly_as_long_as_its_width(
    stream: bytes, encoding: int, width: int
) -> None:
    header = struct.pack("<BBHQII", 2, encoding, width, 1, 1, 1)
    try:
        decoded = decode_features(header + stream)
    except DecodeError:
        return
    assert decoded.values.shape == (width,)
    assert int(decoded.values.max()) < 2**decoded.bits


@given(messages)
def test_every_truncation_and_extension_is_refused(message: FeatureMessage) -> None:
    payload = encode_features(message)
    for length in range(len(payload)):
        with pytest.raises(DecodeError):
            decode_features(payload[:length])
    with pytest.raises(DecodeError):
        decode_features(payload + b"\0")


@given(scalar_messages | code_messages(deflate=False), st.data())
def test_a_flipped_bit_is_refused_or_means_exactly_its_bytes(message: FeatureMessage, data: st.DataObject) -> None:
    payload = bytearray(encode_features(message))
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    payload[bit // 8] ^= 1 << bit % 8
    try:
        decoded = decode_features(bytes(payload))
    except ProtocolError:
        return
    assert decoded.deflate or encode_features(decoded) == bytes(payload)  # many streams inflate to the same codes


@given(
    st.binary(max_size=200)
    | st.binary(max_size=80).map(lambda tail: b"\x01\x01\x03\x00" + tail)
    | st.binary(max_size=80).map(lambda tail: b"\x02\x03\x03\x00" + tail)
)
def test_garbage_raises_only_protocol_errors_and_what_passes_is_finite(payload: bytes) -> None:
    try:
        decoded = decode_features(payload)
    except ProtocolError:
        return
    if decoded.bits:
        assert int(decoded.values.max()) < 2**decoded.bits
    else:
        assert np.abs(decoded.features).max() <= MAX_FEATURE


@given(messages, st.integers(0, 255).filter(lambda version: version not in (1, 2)))
def test_another_version_is_named_whatever_follows(message: FeatureMessage, version: int) -> None:
    payload = bytes([version]) + encode_features(message)[1:]
    for length in (1, HEADER_BYTES, len(payload)):
        with pytest.raises(UnsupportedVersionError, match=f"version {version}"):
            decode_features(payload[:length])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_features_that_would_overflow_the_head_are_refused(value: float) -> None:
    payload = encode_features(FeatureMessage(1, np.array([0.0, value], np.float32), 1, 1))
    with pytest.raises(DecodeError, match="not all values"):
        decode_features(payload)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 2 * MAX_SCALE, 1e-45])
def test_scales_that_mean_nothing_are_refused_both_ways(scale: float) -> None:
    message = FeatureMessage(1, np.array([1], np.int8), 1, 1, 0.5, 0)
    payload = bytearray(encode_features(message))
    payload[20:24] = struct.pack("<f", scale)
    with pytest.raises(DecodeError, match="scale"):
        decode_features(bytes(payload))
    with pytest.raises(ValueError, match="scale"):
        encode_features(replace(message, scale=scale))


@pytest.mark.parametrize("offset", [1, 11, 25, 26, 27])
def test_fields_that_version_1_does_not_know_are_refused(offset: int) -> None:
    payload = bytearray(encode_features(FeatureMessage(1, np.array([1], np.int8), 1, 1, 0.5, 0)))
    payload[offset] = 0xFF
    with pytest.raises(DecodeError):
        decode_features(bytes(payload))


@pytest.mark.parametrize("change", [{"scale": 0.5}, {"zero_point": 3}])
def test_float_features_have_no_quantisation(change: dict[str, float]) -> None:
    message = FeatureMessage(1, np.array([1.0], np.float32), 1, 1)
    with pytest.raises(ValueError, match="neither scale"):
        encode_features(replace(message, **change))
    payload = bytearray(encode_features(message))
    payload[20:25] = struct.pack("<fb", change.get("scale", 0), change.get("zero_point", 0))
    with pytest.raises(DecodeError, match="not 0"):
        decode_features(bytes(payload))


@pytest.mark.parametrize(
    "change",
    [
        {"values": np.zeros(0, np.int8)},
        {"values": np.zeros((1, 2), np.int8)},
        {"values": np.zeros(2, np.float64)},
        {"values": np.zeros(2**16, np.int8)},
        {"frame_id": -1},
        {"frame_id": MAX_FRAME_ID + 1},
        {"student_us": -1},
        {"agent_us": -1},
        {"zero_point": 128},
        {"zero_point": -129},
    ],
)
def test_what_the_layout_cannot_hold_is_not_encoded(change: dict[str, object]) -> None:
    message = FeatureMessage(1, np.array([1], np.int8), 1, 1, 0.5, 0)
    with pytest.raises(ValueError, match="expected"):
        encode_features(replace(message, **change))


def test_times_beyond_the_field_saturate() -> None:
    message = FeatureMessage(1, np.array([1], np.int8), 2**40, 2**40, 0.5, 0)
    decoded = decode_features(encode_features(message))
    assert decoded.student_us == decoded.agent_us == MAX_MICROSECONDS


@given(arrays(np.int8, st.integers(1, 30)), st.floats(2.0**-20, 100.0, width=32), zero_points)
def test_quantising_what_was_dequantised_changes_nothing(values: np.ndarray, scale: float, zero_point: int) -> None:
    assert np.array_equal(quantize(dequantize(values, scale, zero_point), scale, zero_point), values)


@given(arrays(np.float32, st.integers(1, 30), elements=st.floats(0, 25.0, width=32)), zero_points)
def test_quantisation_is_off_by_half_a_step_at_most(features: np.ndarray, zero_point: int) -> None:
    scale = 0.1
    back = dequantize(quantize(features, scale, zero_point), scale, zero_point)
    reachable = np.minimum(features, np.float32(scale * (127 - zero_point)))
    assert np.abs(back - reachable).max() <= 0.5 * scale + 1e-5
