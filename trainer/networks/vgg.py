"""VGG with batch normalisation for small images: Simonyan and Zisserman, arXiv 1409.1556, as used on CIFAR-10."""

from typing import Any

import keras

from trainer.networks.layers import batch_norm, relu

# Convolutions of each of the five groups (64, 128, 256, 512, 512 filters).
GROUPS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
FILTERS = (64, 128, 256, 512, 512)


def matches(name: str) -> bool:
    """Tell whether `name` is one of the four depths."""
    return name in GROUPS


def trunk(name: str, pixels: Any, prefix: str, size: tuple[int, int]) -> Any:
    """Feature map of the last convolution: (batch, height, width, 512).

    The pool after the last group is left to the global pooling that follows; it would only halve what is averaged.
    A pool is left out where images are too small to halve again.
    """
    flow, smallest = pixels, min(size)
    for group, convolutions in enumerate(GROUPS[name]):
        if group > 0 and smallest >= 2:
            flow = keras.layers.MaxPooling2D(name=f"{prefix}pool{group - 1}")(flow)
            smallest //= 2
        for number in range(convolutions):
            # The biases are idle before a BN; they are there because the published sizes count them.
            layer = keras.layers.Conv2D(
                FILTERS[group], 3, padding="same", kernel_initializer="he_normal", name=f"{prefix}g{group}c{number}"
            )
            flow = relu(batch_norm(layer(flow), f"{prefix}g{group}c{number}_bn"), f"{prefix}g{group}c{number}_out")
    return flow
