import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.protocol.errors import DecodeError, ProtocolError
from edge_agent.protocol.feature_calibration import calibrate_ranges, squared_error
from edge_agent.protocol.feature_codec import (
    BITS,
    DEFLATED,
    ChannelRanges,
    PayloadEncoding,
    decode_payload,
    dequantize_channels,
    encode_payload,
    payload_bytes,
    quantize_channels,
)
from edge_agent.protocol.feature_message import CHANNELS_HEADER_BYTES, FeatureMessage, encode_features
from edge_agent.protocol.manifest import Codec
from trainer.feature_budget import (
    BudgetRow,
    budget_table,
    channel_codec,
    choose_row,
    chosen_codecs,
    feature_budget,
    through_codec,
)

WIDTHS = st.integers(1, 130)


@st.composite
def features_and_ranges(draw, bits=None):
    width = draw(WIDTHS)
    values = draw(hnp.arrays(np.float32, width, elements=st.floats(-50, 50, width=32)))
    low = draw(hnp.arrays(np.float32, width, elements=st.floats(-60, 0, width=32)))
    step = draw(hnp.arrays(np.float32, width, elements=st.floats(0.015625, 1, width=32)))
    return values, ChannelRanges(low, step)


@given(features_and_ranges(), st.sampled_from(list(BITS)), st.booleans())
def test_features_within_the_range_come_back_within_half_a_step(example, encoding, deflate):
    values, ranges = example
    high = ranges.low + ranges.step * (2 ** BITS[encoding] - 1)
    values = np.clip(values, ranges.low, high)
    kind, payload = encode_payload(values, encoding, ranges, deflate)
    back = decode_payload(kind, payload, values.size, ranges)
    assert np.all(np.abs(back - values) <= ranges.step * 0.5 + 1e-4)
    assert len(payload) <= payload_bytes(encoding, values.size)


@given(hnp.arrays(np.float32, WIDTHS, elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_float32_features_come_back_exactly(values):
    kind, payload = encode_payload(values, PayloadEncoding.FLOAT32)
    np.testing.assert_array_equal(decode_payload(kind, payload, values.size), values)


@given(features_and_ranges(), st.sampled_from(list(PayloadEncoding)), st.data())
def test_every_truncation_is_refused(example, encoding, data):
    values, ranges = example
    kind, payload = encode_payload(values, encoding, ranges)
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(DecodeError):
        decode_payload(kind, payload[:cut], values.size, ranges)


@given(features_and_ranges(), st.sampled_from(list(PayloadEncoding)), st.binary(min_size=1, max_size=8))
def test_trailing_bytes_are_refused(example, encoding, trailing):
    values, ranges = example
    kind, payload = encode_payload(values, encoding, ranges)
    with pytest.raises(DecodeError):
        decode_payload(kind, payload + trailing, values.size, ranges)


@given(st.integers(0, 255), st.binary(max_size=300), WIDTHS)
def test_garbage_raises_our_error_or_decodes(kind, payload, width):
    ranges = ChannelRanges(np.zeros(width, np.float32), np.ones(width, np.float32))
    try:
        features = decode_payload(kind, payload, width, ranges)
    except ProtocolError:
        return
    assert features.shape == (width,)
    assert np.isfinite(features).all()


def test_a_deflate_bomb_is_refused_without_inflating_it():
    import zlib

    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(50_000_000)) + compressor.flush()
    with pytest.raises(DecodeError, match="overlong"):
        decode_payload(PayloadEncoding.INT8_CHANNELS | DEFLATED, bomb, 16)


def test_deflate_is_used_only_where_it_pays():
    ranges = ChannelRanges(np.zeros(128, np.float32), np.full(128, 1 / 15, np.float32))
    sparse = np.zeros(128, np.float32)
    sparse[::16] = 1
    noisy = np.random.default_rng(0).random(128, np.float32)
    kind, payload = encode_payload(sparse, PayloadEncoding.INT4_CHANNELS, ranges)
    assert kind & DEFLATED
    assert len(payload) < 32
    kind, payload = encode_payload(noisy, PayloadEncoding.INT4_CHANNELS, ranges)
    assert not kind & DEFLATED
    assert len(payload) == 64


def test_128_features_fit_in_64_bytes_and_96_with_the_header():
    assert payload_bytes(PayloadEncoding.INT4_CHANNELS, 128) == 64
    message = FeatureMessage(1, np.arange(128, dtype=np.uint8) % 16, 1, 1, bits=4)
    assert len(encode_features(message)) == CHANNELS_HEADER_BYTES + 64 == 84


@pytest.mark.parametrize("bits", [4, 8])
def test_calibration_clips_a_tail_and_keeps_zero_exact(bits):
    rng = np.random.default_rng(3)
    features = np.maximum(rng.gumbel(size=(2000, 8)) * [1, 2, 3, 4, 5, 6, 7, 0], 0).astype(np.float32)
    features[0, 0] = 60  # one outlier must not set the step of its channel
    ranges = calibrate_ranges(features, bits)
    codes = np.rint(-ranges.low / ranges.step)
    np.testing.assert_allclose(ranges.low + codes * ranges.step, 0, atol=1e-6)
    plain = ChannelRanges(np.zeros(8, np.float32), np.maximum(features.max(0) / (2**bits - 1), 1e-6))
    assert np.all(squared_error(features, ranges, bits) <= squared_error(features, plain, bits) * 1.0001 + 1e-12)
    assert bits == 8 or ranges.step[0] < plain.step[0] * 0.9


@given(hnp.arrays(np.float32, (5, 7), elements=st.floats(-100, 100, width=32)))
def test_calibrated_int8_is_within_a_percent_of_the_range(features):
    ranges = calibrate_ranges(features, 8)
    back = [decode_payload(*encode_payload(row, PayloadEncoding.INT8_CHANNELS, ranges), 7, ranges) for row in features]
    spread = np.maximum(features.max(0), 0) - np.minimum(features.min(0), 0)
    assert np.all(np.mean((np.stack(back) - features) ** 2, axis=0) ** 0.5 <= 0.01 * spread + 1e-4)


@pytest.mark.parametrize(
    "bad", [(np.zeros(2), np.zeros(2)), (np.zeros(2), np.ones(3)), (np.full(1, np.nan), np.ones(1))]
)
def test_impossible_ranges_are_refused(bad):
    with pytest.raises(ValueError, match="ranges"):
        ChannelRanges(*(part.astype(np.float32) for part in bad))


def test_width_other_than_the_manifests_is_refused():
    ranges = ChannelRanges(np.zeros(4, np.float32), np.ones(4, np.float32))
    with pytest.raises(DecodeError, match="width 6"):
        decode_payload(PayloadEncoding.INT8_CHANNELS, bytes(6), 6, ranges)


def test_the_budget_table_shows_that_int4_halves_int8_and_loses_little():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    centres = [rng.random((4, 32)).astype(np.float32) * 3 for _ in range(2)]
    features = [np.maximum(c[labels] + rng.normal(0, 0.4, (400, 32)).astype(np.float32), 0) for c in centres]

    def classify(parts):
        joined, middle = np.concatenate(parts, axis=1), np.concatenate(centres, axis=1)
        return np.argmin(((joined[:, None] - middle) ** 2).sum(axis=2), axis=1)

    rows = {row.title: row for row in feature_budget([f[:100] for f in features], features, labels, classify)}
    assert rows["float32"].largest_payload_bytes == 128
    assert rows["int8 per channel"].largest_payload_bytes == 32
    assert rows["int4 per channel"].largest_payload_bytes == 16
    assert abs(rows["int4 per channel"].points_lost) <= 1
    table = budget_table(list(rows.values()), rows["int4 per channel"])
    assert [line for line in table.splitlines() if "chosen" in line] == [
        line for line in table.splitlines() if line.startswith("| int4 per channel |")
    ]
    assert rows["int4 per channel"].largest_message_bytes == 16 + CHANNELS_HEADER_BYTES


def row(encoding: str, payload: float, lost: float, deflate: bool = False) -> BudgetRow:
    header = 28 if encoding == "float32" else CHANNELS_HEADER_BYTES
    return BudgetRow(encoding, deflate, payload, int(payload), int(payload) + header, 0.9, lost)


def test_the_shortest_encoding_that_loses_little_is_chosen():
    rows = [row("float32", 512, 0), row("int8", 128, 0.02), row("int4", 64, 0.08)]
    assert choose_row(rows, "auto", 0.1).encoding == "int4"
    assert choose_row(rows, "auto", 0.05).encoding == "int8"
    assert choose_row(rows, "auto", 0.0).encoding == "float32"
    assert choose_row(rows, "int8", 0.0).encoding == "int8"  # asked for, whatever it loses


def test_deflate_is_chosen_only_where_it_saves_a_twentieth_of_the_message():
    plain = row("int4", 64, 0)
    assert choose_row([plain, row("int4", 62, 0, deflate=True)], "auto", 0.1) == plain
    assert choose_row([plain, row("int4", 40, 0, deflate=True)], "auto", 0.1).deflate


@pytest.mark.parametrize("bits", [4, 8])
def test_short_numbers_of_a_codec_keep_zero_exact_and_lose_nothing(bits):
    seen = np.random.default_rng(2).normal(0.5, 1, (300, 20)).astype(np.float32)
    exact = calibrate_ranges(seen, bits)
    codec = channel_codec(seen, bits)
    zeros = through_codec(np.zeros((1, 20), np.float32), codec)
    assert np.abs(zeros).max() < 1e-6
    error = np.mean((through_codec(seen, codec) - seen) ** 2)
    assert error <= 1.01 * np.mean(squared_error(seen, exact, bits))
    assert codec.ranges.curve == "linear"
    assert max(len(repr(step)) for step in codec.ranges.step) <= 9


def test_squares_are_taken_where_features_crowd_near_zero():
    rng = np.random.default_rng(4)
    crowded = rng.exponential(1, (2000, 12)).astype(np.float32) ** 1.5
    even = rng.random((2000, 12)).astype(np.float32)
    assert channel_codec(crowded, 4).ranges.curve == "square"
    assert channel_codec(even, 4).ranges.curve == "linear"
    assert channel_codec(crowded, 8).ranges.curve == "linear"


@given(hnp.arrays(np.float32, 30, elements=st.floats(-1, 300, width=32)))
def test_squared_codes_are_the_nearest(values):
    ranges = ChannelRanges(np.full(30, -0.5, np.float32), np.full(30, 1.25, np.float32), square=True)
    codes = quantize_channels(values, ranges, 4)
    every = ranges.low[0] + ranges.step[0] * np.arange(16, dtype=np.float32) ** 2
    nearest = np.abs(values[:, None] - every).min(axis=1)
    assert np.allclose(np.abs(dequantize_channels(codes, ranges) - values), nearest, atol=1e-4)


def test_codecs_follow_the_row():
    seen = [np.random.default_rng(3).random((50, 4)).astype(np.float32)]
    assert chosen_codecs(row("float32", 16, 0), seen) == [Codec(encoding="float32")]
    [codec] = chosen_codecs(row("int4", 2, 0, deflate=True), seen)
    assert (codec.encoding, codec.deflate, codec.ranges is not None) == ("int4", True, True)
