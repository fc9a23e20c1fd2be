"""Wide residual networks with pre-activation: Zagoruyko and Komodakis, BMVC 2016, arXiv 1605.07146."""

import re
from typing import Any

import keras

from trainer.networks.layers import batch_norm, convolution, relu

NAME = re.compile(r"^wrn-(\d+)-(\d+)$")


def matches(name: str) -> bool:
    """Tell whether `name` is a wrn-D-K with D = 6 n + 4.

    >>> matches("wrn-16-1"), matches("wrn-17-1")
    (True, False)
    """
    match = NAME.match(name)
    return match is not None and int(match[1]) >= 10 and int(match[1]) % 6 == 4 and int(match[2]) >= 1


def trunk(name: str, pixels: Any, prefix: str) -> Any:
    """Feature map after the last BN and ReLU: (batch, height/4, width/4, 64 K)."""
    depth, widening = (int(part) for part in name.split("-")[1:])
    blocks = (depth - 4) // 6
    flow = convolution(pixels, 16, 3, name=f"{prefix}stem")
    for group in range(3):
        for block in range(blocks):
            stride = 2 if group > 0 and block == 0 else 1
            flow = _block(flow, 16 * widening * 2**group, stride, f"{prefix}g{group}b{block}_")
    return relu(batch_norm(flow, f"{prefix}bn_out"), f"{prefix}out")


def _block(flow: Any, channels: int, stride: int, prefix: str) -> Any:
    opened = relu(batch_norm(flow, f"{prefix}bn1"))
    # Where the shape changes, the shortcut starts after the activation, as in the authors' code.
    reshapes = stride != 1 or flow.shape[-1] != channels
    shortcut = convolution(opened, channels, 1, stride, name=f"{prefix}shortcut") if reshapes else flow
    inner = convolution(opened, channels, 3, stride, name=f"{prefix}conv1")
    inner = relu(batch_norm(inner, f"{prefix}bn2"))
    inner = convolution(inner, channels, 3, name=f"{prefix}conv2")
    return keras.layers.Add(name=f"{prefix}add")([shortcut, inner])
