"""Bytes per frame and student against accuracy: what each feature encoding costs and loses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.feature_calibration import calibrate_ranges
from edge_agent.protocol.feature_codec import BITS, PayloadEncoding, decode_payload, encode_payload
from edge_agent.protocol.feature_message import HEADER_BYTES

FloatFeatures = NDArray[np.float32]


@dataclass(frozen=True)
class BudgetRow:
    """One encoding: payload bytes per frame and student (mean and largest), accuracy, points lost to float32."""

    encoding: str
    mean_payload_bytes: float
    largest_payload_bytes: int
    largest_message_bytes: int
    accuracy: float
    points_lost: float


def feature_budget(
    calibration: Sequence[FloatFeatures],
    features: Sequence[FloatFeatures],
    labels: NDArray[np.int64],
    classify: Callable[[Sequence[FloatFeatures]], NDArray[np.int64]],
) -> list[BudgetRow]:
    """Encode every student's features (images, width) each way and classify what comes out.

    `calibration`: features of training images, one array per student, to choose ranges from. `classify`: features
    of all students -> (images,) classes.
    """
    baseline = float(np.mean(classify(features) == labels))
    rows = [_row("float32", [values.shape[1] * 4 for values in features], baseline, baseline)]
    for encoding, bits in BITS.items():
        for deflate in (False, True):
            decoded, sizes = _through(calibration, features, encoding, bits, deflate)
            accuracy = float(np.mean(classify(decoded) == labels))
            name = f"int{bits} per channel{' + deflate' if deflate else ''}"
            rows.append(_row(name, sizes, accuracy, baseline))
    return rows


def budget_table(rows: Sequence[BudgetRow]) -> str:
    """Write the rows as a Markdown table."""
    lines = [
        "| encoding | payload bytes, mean | largest | message, largest | accuracy | points lost |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.encoding} | {row.mean_payload_bytes:.1f} | {row.largest_payload_bytes} | "
        f"{row.largest_message_bytes} | {100 * row.accuracy:.2f} % | {row.points_lost:+.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def _through(
    calibration: Sequence[FloatFeatures],
    features: Sequence[FloatFeatures],
    encoding: PayloadEncoding,
    bits: int,
    deflate: bool,
) -> tuple[list[FloatFeatures], list[int]]:
    decoded, sizes = [], []
    for seen, values in zip(calibration, features, strict=True):
        ranges = calibrate_ranges(seen, bits)
        payloads = [encode_payload(row, encoding, ranges, deflate) for row in values]
        decoded.append(np.stack([decode_payload(kind, raw, values.shape[1], ranges) for kind, raw in payloads]))
        sizes += [len(raw) for _, raw in payloads]
    return decoded, sizes


def _row(name: str, sizes: list[int], accuracy: float, baseline: float) -> BudgetRow:
    largest = max(sizes)
    return BudgetRow(
        name, float(np.mean(sizes)), largest, largest + HEADER_BYTES, accuracy, 100 * (baseline - accuracy)
    )
