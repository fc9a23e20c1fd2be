"""Ranges for the feature codec: per channel, the clipping that loses least. Pure NumPy."""

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.feature_codec import ChannelRanges, dequantize_channels, quantize_channels

# Share of the largest value that is kept: a long tail is worth clipping, most of all with 16 codes.
CLIP_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3)
SMALLEST_STEP = 1e-6  # a channel that never fires still needs a range


def calibrate_ranges(features: NDArray[np.float32], bits: int, square: bool = False) -> ChannelRanges:
    """Choose each channel's range with the least squared error over `features` (images, width), float32.

    `square`: of squared codes, which start at the smallest feature.

    >>> ranges = calibrate_ranges(np.linspace(0, 3, 64, dtype=np.float32)[:, None], bits=4)
    >>> bool(ranges.low[0] == 0), round(float(ranges.step[0]), 2)
    (True, 0.2)
    """
    if features.ndim != 2 or not features.size or not np.isfinite(features).all():
        raise ValueError(f"calibration features {features.shape}: expected finite numbers, (images, width)")
    # Features after ReLU start at an exact 0, and 0 stays exact.
    low, high = np.minimum(features.min(axis=0), 0), np.maximum(features.max(axis=0), 0)
    if square:
        last = (2**bits - 1) ** 2
        spans = [np.maximum((high * share - low) / last, SMALLEST_STEP) for share in CLIP_SHARES]
        candidates = [ChannelRanges(low.astype(np.float32), span.astype(np.float32), square=True) for span in spans]
    else:
        candidates = [_ranges(low * share, high * share, bits) for share in CLIP_SHARES]
    errors = np.stack([squared_error(features, ranges, bits) for ranges in candidates])
    best = errors.argmin(axis=0)
    channels = np.arange(features.shape[1])
    return ChannelRanges(
        np.stack([ranges.low for ranges in candidates])[best, channels],
        np.stack([ranges.step for ranges in candidates])[best, channels],
        square,
    )


def squared_error(features: NDArray[np.float32], ranges: ChannelRanges, bits: int) -> NDArray[np.float64]:
    """Mean squared error of each channel: features (images, width), float32 -> (width,), float64."""
    back = dequantize_channels(quantize_channels(features, ranges, bits), ranges)
    error: NDArray[np.float64] = np.mean((features - back).astype(np.float64) ** 2, axis=0)
    return error


def _ranges(low: NDArray[np.float32], high: NDArray[np.float32], bits: int) -> ChannelRanges:
    """Ranges from low to high in which 0 is a code: low is a whole number of steps below it."""
    codes = 2**bits - 1
    step = np.maximum((high - low) / codes, SMALLEST_STEP)
    below_zero = np.ceil(-low / step)
    # Rounding low down must not push high out: stretch the step where it would.
    step = np.maximum(step, np.where(below_zero < codes, high / np.maximum(codes - below_zero, 1), step))
    return ChannelRanges((-below_zero * step).astype(np.float32), step.astype(np.float32))
