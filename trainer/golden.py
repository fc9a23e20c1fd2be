"""The synthetic image and the features by which a device proves that its student works. Pure NumPy."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WAVES = 6


def golden_image(shape: tuple[int, int, int], seed: int) -> NDArray[np.uint8]:
    """Sum of a few plane waves per channel, and some noise: never an image of a data set. -> shape, uint8.

    >>> golden_image((2, 2, 1), seed=0).shape
    (2, 2, 1)
    """
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    layers = []
    for _ in range(channels):
        frequencies, phases = rng.normal(0, 1.5, (WAVES, 2)), rng.random(WAVES)
        turns = frequencies[:, :1, None] * rows + frequencies[:, 1:, None] * columns + phases[:, None, None]
        layers.append(np.cos(2 * np.pi * turns).sum(axis=0))
    image = np.stack(layers, axis=-1) + rng.normal(0, 0.3, shape)
    low, high = image.min(), image.max()
    pixels: NDArray[np.uint8] = np.rint((image - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    return pixels


def golden_tolerance(
    golden: NDArray[np.float32], answers: Sequence[NDArray[np.float32]], steps: Sequence[float]
) -> float:
    """How far a working artifact may be from the golden features.

    golden: (width,), from the float32 file; answers: (width,) of each exported file on this machine; steps: size of
    one int8 step of each file with int8 features. The largest difference seen here, plus one step and a half for
    another CPU's rounding, and at least 0.1 % of the largest feature.

    >>> round(golden_tolerance(np.float32([1.0]), [np.float32([1.25])], [0.1]), 3)
    0.4
    """
    seen = max((float(np.max(np.abs(answer - golden))) for answer in answers), default=0.0)
    return max(seen + 1.5 * max(steps, default=0.0), 1e-3 * float(np.max(np.abs(golden))), 1e-6)
