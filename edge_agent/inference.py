"""From the interpreter's output to the feature message. Pure."""

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.feature_codec import MAX_FEATURE, quantize_channels
from edge_agent.protocol.feature_message import FeatureMessage
from edge_agent.protocol.manifest import Codec
from edge_agent.protocol.quantization import dequantize, quantize

Features = NDArray[np.int8] | NDArray[np.float32]


def feature_message(
    frame_id: int,
    features: Features,
    quantization: tuple[float, int] | None,
    codec: Codec,
    student_us: int,
    agent_us: int,
) -> FeatureMessage:
    """Features as they travel: as the manifest's codec says; without ranges there, int8 output goes out as it is.

    features: (width,), int8 with `quantization` (scale, zero_point), or float32 with None.
    """
    if codec.channel_ranges is not None:
        codes = quantize_channels(real_features(features, quantization), codec.channel_ranges, codec.bits)
        return FeatureMessage(
            frame_id, codes, student_us, agent_us,
            bits=codec.bits, deflate=codec.deflate, ranges=codec.channel_ranges,
        )  # fmt: skip
    if quantization is not None:
        scale, zero_point = quantization
        return FeatureMessage(frame_id, features, student_us, agent_us, scale, zero_point)
    real = features.astype(np.float32, copy=False)
    if codec.encoding == "float32":
        return FeatureMessage(frame_id, real, student_us, agent_us)
    values = quantize(real, codec.scale, codec.zero_point)
    return FeatureMessage(frame_id, values, student_us, agent_us, codec.scale, codec.zero_point)


def are_numbers(features: Features) -> bool:
    """Whether features may travel: finite and within the protocol's bound. features: (width,), int8 or float32.

    >>> are_numbers(np.array([0.5, np.nan], np.float32)), are_numbers(np.array([3.0], np.float32))
    (False, True)
    """
    return features.dtype == np.int8 or bool((np.abs(features) <= MAX_FEATURE).all())


def real_features(features: Features, quantization: tuple[float, int] | None) -> NDArray[np.float32]:
    """Real values of interpreter output: (width,), float32."""
    if quantization is None:
        return features.astype(np.float32, copy=False)
    return dequantize(features.astype(np.int8, copy=False), *quantization)


def golden_error(real: NDArray[np.float32], golden: tuple[float, ...]) -> float:
    """Largest difference to the manifest's golden features; inf for NaN. real: (width,), float32.

    >>> golden_error(np.array([0.0, 0.75], np.float32), (0.0, 0.5))
    0.25
    """
    error = float(np.max(np.abs(real - np.asarray(golden, np.float32))))
    return error if np.isfinite(error) else float("inf")
