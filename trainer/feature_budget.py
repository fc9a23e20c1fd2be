"""Bytes per frame and student against accuracy: what each feature encoding costs and loses, and which one to take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.feature_calibration import calibrate_ranges
from edge_agent.protocol.feature_codec import (
    ENCODINGS,
    ChannelRanges,
    dequantize_channels,
    encode_payload,
    payload_bytes,
    quantize_channels,
)
from edge_agent.protocol.feature_message import CHANNELS_HEADER_BYTES, HEADER_BYTES
from edge_agent.protocol.manifest import Codec, CodecRanges

FloatFeatures = NDArray[np.float32]
# Deflating costs an agent about 50 us a frame (x86_64) and a Pi ten times that: it has to buy something.
LEAST_SAVING = 0.05  # of the message
SIZED_IMAGES = 500  # deflated lengths are averages; these are enough for a tenth of a byte


@dataclass(frozen=True)
class BudgetRow:
    """One encoding: bytes per frame and student (mean and largest over students and images), accuracy, points lost."""

    encoding: str  # as in the manifest
    deflate: bool
    mean_payload_bytes: float
    largest_payload_bytes: int
    largest_message_bytes: int  # header included
    accuracy: float
    points_lost: float  # to float32, in percentage points

    @property
    def title(self) -> str:
        """Name for people."""
        scale = "" if self.encoding == "float32" else " per channel"
        return f"{self.encoding}{scale}{' + deflate' if self.deflate else ''}"

    @property
    def mean_message_bytes(self) -> float:
        """Payload and header."""
        return self.mean_payload_bytes + self.largest_message_bytes - self.largest_payload_bytes


def feature_budget(
    calibration: Sequence[FloatFeatures],
    features: Sequence[FloatFeatures],
    labels: NDArray[np.int64],
    classify: Callable[[Sequence[FloatFeatures]], NDArray[np.int64]],
) -> list[BudgetRow]:
    """Send every student's features (images, width) each way and classify what comes out.

    `calibration`: features of training images, one array per student, to choose ranges from. `classify`: features
    of all students -> (images,) classes.
    """
    baseline = float(np.mean(classify(features) == labels))
    rows = [_row("float32", False, [values.shape[1] * 4 for values in features], HEADER_BYTES, baseline, baseline)]
    for bits, encoding in sorted(ENCODINGS.items(), reverse=True):
        name = f"int{bits}"
        codecs = [channel_codec(seen, bits) for seen in calibration]
        arrived = [through_codec(values, codec) for values, codec in zip(features, codecs, strict=True)]
        accuracy = float(np.mean(classify(arrived) == labels))
        plain = [payload_bytes(encoding, values.shape[1]) for values in features]
        deflated = [
            len(encode_payload(row, encoding, codec.channel_ranges)[1])
            for values, codec in zip(features, codecs, strict=True)
            for row in values[:SIZED_IMAGES]
        ]
        rows.append(_row(name, False, plain, CHANNELS_HEADER_BYTES, accuracy, baseline))
        rows.append(_row(name, True, deflated, CHANNELS_HEADER_BYTES, accuracy, baseline))
    return rows


def choose_row(rows: Sequence[BudgetRow], encoding: str, most_points_lost: float) -> BudgetRow:
    """Choose the shortest messages of those that lose at most `most_points_lost`, or of the asked `encoding`.

    Deflate is taken where it saves LEAST_SAVING of the message.
    """
    fitting = [r for r in rows if (r.points_lost <= most_points_lost if encoding == "auto" else r.encoding == encoding)]
    plain = min((row for row in fitting if not row.deflate), key=lambda row: row.mean_message_bytes)
    deflated = next((row for row in fitting if row.deflate and row.encoding == plain.encoding), plain)
    pays = deflated.mean_message_bytes <= (1 - LEAST_SAVING) * plain.mean_message_bytes
    return deflated if pays else plain


def channel_codec(seen: FloatFeatures, bits: int, deflate: bool = False) -> Codec:
    """Calibrate a codec of `bits` on features `seen` (images, width); its numbers are short ones.

    With 16 codes the better of two curves: squares lose a quarter less on features of WRN-16-1.

    >>> channel_codec(np.linspace(0, 3, 64, dtype=np.float32)[:, None], bits=4).ranges
    CodecRanges(low=(0.0,), step=(0.2,), curve='linear')
    """
    codecs = [
        _codec_of(calibrate_ranges(seen, bits, square), bits, deflate) for square in (False, True)[: 1 + (bits < 8)]
    ]
    return min(codecs, key=lambda codec: _relative_error(seen, codec))


def _codec_of(ranges: ChannelRanges, bits: int, deflate: bool) -> Codec:
    # Four digits: thousands of them stand in the manifest, and a ten thousandth of a step does not matter.
    steps = [float(f"{step:.4g}") for step in ranges.step.tolist()]
    if ranges.square:
        lows = [float(f"{low:.4g}") for low in ranges.low.tolist()]
    else:  # whole steps below 0, which stays a code
        below_zero = np.rint(-ranges.low / ranges.step).astype(int).tolist()
        lows = [-count * step if count else 0.0 for count, step in zip(below_zero, steps, strict=True)]
    curve = "square" if ranges.square else "linear"
    content = {"low": tuple(lows), "step": tuple(steps), "curve": curve}
    return Codec.model_validate(
        {"encoding": f"int{bits}", "ranges": CodecRanges.model_validate(content), "deflate": deflate}
    )


def _relative_error(seen: FloatFeatures, codec: Codec) -> float:
    """Squared error over variance, mean over the channels."""
    error = np.mean((through_codec(seen, codec) - seen).astype(np.float64) ** 2, axis=0)
    return float(np.mean(error / np.maximum(seen.var(axis=0, dtype=np.float64), 1e-12)))


def through_codec(features: FloatFeatures, codec: Codec) -> FloatFeatures:
    """Features (images, width) as the coordinator sees them, for a codec with ranges."""
    ranges = codec.channel_ranges
    if ranges is None:
        return features
    return dequantize_channels(quantize_channels(features, ranges, codec.bits), ranges).astype(np.float32)


def chosen_codecs(row: BudgetRow, calibration: Sequence[FloatFeatures]) -> list[Codec]:
    """One codec for each student."""
    if row.encoding == "float32":
        return [Codec(encoding="float32") for _ in calibration]
    return [channel_codec(seen, int(row.encoding.removeprefix("int")), row.deflate) for seen in calibration]


def budget_table(rows: Sequence[BudgetRow], chosen: BudgetRow | None = None) -> str:
    """Write the rows as a Markdown table."""
    lines = [
        "| features as | payload bytes, mean | largest | message, largest | accuracy | points lost | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.title} | {row.mean_payload_bytes:.1f} | {row.largest_payload_bytes} | "
        f"{row.largest_message_bytes} | {100 * row.accuracy:.2f} % | {row.points_lost:+.2f} | "
        f"{'chosen' if row == chosen else ''} |"
        for row in rows
    ]
    return "\n".join(lines)


def _row(name: str, deflate: bool, sizes: list[int], header: int, accuracy: float, baseline: float) -> BudgetRow:
    lost = round(100 * (baseline - accuracy), 6)
    return BudgetRow(name, deflate, float(np.mean(sizes)), max(sizes), max(sizes) + header, accuracy, lost)
