"""The shape of Keller Jordan's airbench networks (arXiv 2404.00498), which reach 94 % on CIFAR-10 in few FLOPs.

Differs from the original in its activation (ReLU after the last convolution of each group, so that LCONV activities
are non-negative as the paper wants them) and in mean pooling where the original takes the maximum.
"""

from typing import Any

import keras
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from trainer.networks.layers import batch_norm, relu

WHITENING_FILTERS = 24  # 2 x 12: each eigenvector of 2x2x3 patches and its negative
FILTERS = (64, 256, 256)


def matches(name: str) -> bool:
    """Tell whether `name` is the airbench network."""
    return name == "airbench"


def trunk(_name: str, pixels: Any, prefix: str) -> Any:
    """Feature map of the last convolution: (batch, height/8 - 1, width/8 - 1, 256)."""
    whitened = keras.layers.Conv2D(
        WHITENING_FILTERS, 2, padding="valid", use_bias=True, name=f"{prefix}whitening", trainable=False
    )(pixels)
    flow = keras.layers.Activation("silu", name=f"{prefix}whitening_out")(whitened)
    for group, filters in enumerate(FILTERS):
        flow = _convolution(flow, filters, f"{prefix}g{group}c0")
        flow = keras.layers.MaxPooling2D(name=f"{prefix}g{group}_pool")(flow)
        flow = keras.layers.Activation("silu", name=f"{prefix}g{group}a0")(batch_norm(flow, f"{prefix}g{group}bn0"))
        flow = _convolution(flow, filters, f"{prefix}g{group}c1")
        flow = relu(batch_norm(flow, f"{prefix}g{group}bn1"), f"{prefix}g{group}a1")
    return flow


def prepare(network: Any, images: NDArray[np.uint8]) -> None:
    """Set the whitening filters from training images (n, h, w, channels), and start convolutions as identities."""
    normalised = np.asarray(network.get_layer("normalise")(images.astype(np.float32)))
    layer = network.get_layer("whitening")
    kernel, bias = layer.get_weights()
    filters = whitening_filters(normalised)[:, :, :, : kernel.shape[-1]]
    kernel[...] = 0
    kernel[..., : filters.shape[-1]] = filters
    layer.set_weights([kernel, np.zeros_like(bias)])
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3):
            (weights,) = layer.get_weights()
            same = min(weights.shape[2:])
            weights[:, :, :, :same] = 0
            weights[1, 1, np.arange(same), np.arange(same)] = 1
            layer.set_weights([weights])


def whitening_filters(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Eigenvectors of 2x2 patches over their deviations, and their negatives: (2, 2, channels, 8 channels), float32.

    images: (n, height, width, channels), normalised. Page, "How to train your ResNet 8"; kept fixed in training.
    """
    channels = images.shape[-1]
    windows = sliding_window_view(images, (2, 2), axis=(1, 2))[:, ::2, ::2]  # (n, rows, columns, channels, 2, 2)
    patches = windows.reshape(-1, channels * 4).astype(np.float64)
    variances, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    scaled = (vectors / np.sqrt(variances + 5e-4))[:, ::-1]
    filters = np.hstack([scaled, -scaled]).reshape(channels, 2, 2, -1).transpose(1, 2, 0, 3)
    result: NDArray[np.float32] = np.ascontiguousarray(filters, np.float32)
    return result


def _convolution(flow: Any, filters: int, name: str) -> Any:
    layer = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=name)
    return layer(flow)
