"""Building blocks that all networks here share."""

from typing import Any

import keras

# Statistics over about the last 10-20 steps: short one-cycle runs end before momentum 0.99 has followed.
BN_MOMENTUM = 0.9
BN_EPSILON = 1e-5


def normalise_pixels(pixels: Any, mean: Any, deviation: Any, name: str) -> Any:
    """Raw pixels 0..255 -> per-channel zero mean and unit variance, always in float32."""
    scale = [1.0 / d for d in deviation]
    offset = [-m / d for m, d in zip(mean, deviation, strict=True)]
    return keras.layers.Rescaling(scale, offset, name=name, dtype="float32")(pixels)


def convolution(flow: Any, channels: int, kernel: int, stride: int = 1, name: str | None = None) -> Any:
    """Convolution without bias, "same" padding, He initialisation."""
    layer = keras.layers.Conv2D(
        channels, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )
    return layer(flow)


def batch_norm(flow: Any, name: str | None = None) -> Any:
    """Batch normalisation over the channels."""
    layer = keras.layers.BatchNormalization(
        momentum=BN_MOMENTUM, epsilon=BN_EPSILON, synchronized=_replicas() > 1, name=name
    )
    return layer(flow)


def relu(flow: Any, name: str | None = None) -> Any:
    """Rectified linear unit."""
    return keras.layers.ReLU(name=name)(flow)


def _replicas() -> int:
    """Replicas of the present tf.distribute strategy; with several, BN must see the whole batch all the same."""
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)
