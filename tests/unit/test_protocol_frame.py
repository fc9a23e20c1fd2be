"""Frames: every image survives the trip, everything else is refused."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent.protocol.errors import DecodeError, ProtocolError, UnsupportedVersionError
from edge_agent.protocol.frame_message import (
    HEADER_BYTES,
    MAX_FRAME_ID,
    MAX_SIDE,
    FrameMessage,
    decode_frame,
    encode_frame,
)

images = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3])))
frames = st.builds(FrameMessage, st.integers(0, MAX_FRAME_ID), st.integers(0, 2**64 - 1), images, st.booleans())


def same(left: FrameMessage, right: FrameMessage) -> bool:
    return (left.frame_id, left.captured_at_us, left.live) == (
        right.frame_id,
        right.captured_at_us,
        right.live,
    ) and np.array_equal(left.image, right.image)


@given(frames)
def test_round_trip(frame: FrameMessage) -> None:
    payload = encode_frame(frame)
    assert len(payload) == HEADER_BYTES + frame.image.size
    assert same(decode_frame(payload), frame)


@given(frames)
def test_every_truncation_and_extension_is_refused(frame: FrameMessage) -> None:
    payload = encode_frame(frame)
    for length in range(len(payload)):
        with pytest.raises(DecodeError):
            decode_frame(payload[:length])
    with pytest.raises(DecodeError):
        decode_frame(payload + b"\0")


@given(frames, st.data())
def test_a_flipped_bit_is_refused_or_gives_a_frame_that_encodes_to_the_same_bytes(
    frame: FrameMessage, data: st.DataObject
) -> None:
    payload = bytearray(encode_frame(frame))
    bit = data.draw(st.integers(0, 8 * min(len(payload), HEADER_BYTES + 8) - 1))
    payload[bit // 8] ^= 1 << bit % 8
    try:
        decoded = decode_frame(bytes(payload))
    except ProtocolError:
        return
    assert encode_frame(decoded) == bytes(payload)


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda tail: b"\x01\x00\x01\x00\x02\x00\x02\x00" + tail))
def test_garbage_raises_only_protocol_errors(payload: bytes) -> None:
    try:
        decoded = decode_frame(payload)
    except ProtocolError:
        return
    assert encode_frame(decoded) == payload


@given(frames, st.integers(0, 255).filter(lambda version: version != 1))
def test_another_version_is_named_whatever_follows(frame: FrameMessage, version: int) -> None:
    payload = bytes([version]) + encode_frame(frame)[1:]
    for length in (1, HEADER_BYTES, len(payload)):
        with pytest.raises(UnsupportedVersionError, match=f"version {version}"):
            decode_frame(payload[:length])


def test_a_header_that_promises_a_huge_image_takes_no_memory() -> None:
    header = struct.pack("<BBBBHHQQ", 1, 0, 3, 0, MAX_SIDE, MAX_SIDE, 0, 0)
    with pytest.raises(DecodeError, match=r"24 bytes, expected 3145752"):
        decode_frame(header)


@pytest.mark.parametrize(
    ("offset", "value"), [(1, 1), (2, 0), (2, 2), (2, 4), (3, 0x02), (3, 0x80), (4, 0), (6, 0), (15, 0x40)]
)
def test_fields_that_version_1_does_not_know_are_refused(offset: int, value: int) -> None:
    payload = bytearray(encode_frame(FrameMessage(7, 0, np.zeros((3, 3, 1), np.uint8))))
    payload[offset] = value
    with pytest.raises(DecodeError):
        decode_frame(bytes(payload))


@pytest.mark.parametrize(
    ("image", "frame_id", "captured_at_us"),
    [
        (np.zeros((2, 2), np.uint8), 0, 0),
        (np.zeros((2, 2, 4), np.uint8), 0, 0),
        (np.zeros((2, 2, 1), np.float32), 0, 0),
        (np.zeros((0, 2, 1), np.uint8), 0, 0),
        (np.zeros((MAX_SIDE + 1, 1, 1), np.uint8), 0, 0),
        (np.zeros((2, 2, 1), np.uint8), -1, 0),
        (np.zeros((2, 2, 1), np.uint8), MAX_FRAME_ID + 1, 0),
        (np.zeros((2, 2, 1), np.uint8), 0, -1),
        (np.zeros((2, 2, 1), np.uint8), 0, 2**64),
    ],
)
def test_what_the_layout_cannot_hold_is_not_encoded(image: np.ndarray, frame_id: int, captured_at_us: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        encode_frame(FrameMessage(frame_id, captured_at_us, image))


def test_an_image_that_is_not_contiguous_travels_row_by_row() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)[:, ::-1]
    assert np.array_equal(decode_frame(encode_frame(FrameMessage(0, 0, image))).image, image)


def test_a_decoded_image_is_a_read_only_view() -> None:
    payload = encode_frame(FrameMessage(0, 0, np.zeros((2, 2, 1), np.uint8)))
    image = decode_frame(payload).image
    assert not image.flags.writeable
    assert not image.flags.owndata
