"""Affine int8 quantisation as TFLite means it: real = scale * (value - zero_point)."""

import numpy as np
from numpy.typing import NDArray

INT8_MIN, INT8_MAX = -128, 127


def quantize(features: NDArray[np.float32], scale: float, zero_point: int) -> NDArray[np.int8]:
    """Nearest int8 of each feature, saturating. features: (..., width), float32 -> same shape, int8.

    >>> quantize(np.array([0.0, 0.49, 99.0], np.float32), scale=0.1, zero_point=-128)
    array([-128, -123,  127], dtype=int8)
    """
    values = np.rint(features / np.float32(scale)) + np.float32(zero_point)
    clipped: NDArray[np.int8] = np.clip(values, INT8_MIN, INT8_MAX).astype(np.int8)
    return clipped


def dequantize(values: NDArray[np.int8], scale: float, zero_point: int) -> NDArray[np.float32]:
    """Real features of int8 values. values: (..., width), int8 -> same shape, float32.

    >>> dequantize(np.array([-128, -123], np.int8), scale=0.1, zero_point=-128)
    array([0. , 0.5], dtype=float32)
    """
    real = values.astype(np.float32)
    real -= np.float32(zero_point)
    real *= np.float32(scale)
    return real
