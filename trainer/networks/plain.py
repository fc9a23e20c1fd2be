"""Plain stacks of convolutions, for images of a few pixels: cnn-A-B-C has A, B and C filters."""

import re
from typing import Any

from trainer.networks.layers import batch_norm, convolution, relu

NAME = re.compile(r"^cnn(-\d+)+$")


def matches(name: str) -> bool:
    """Tell whether `name` is cnn- and the filters of each layer.

    >>> matches("cnn-32-64"), matches("cnn-")
    (True, False)
    """
    return bool(NAME.match(name)) and all(int(part) > 0 for part in name.split("-")[1:])


def trunk(name: str, pixels: Any, prefix: str) -> Any:
    """Feature map of the last layer; every second layer halves the image."""
    flow = pixels
    for number, filters in enumerate(int(part) for part in name.split("-")[1:]):
        flow = convolution(flow, filters, 3, stride=1 + number % 2, name=f"{prefix}conv{number}")
        flow = relu(batch_norm(flow, f"{prefix}bn{number}"), f"{prefix}out{number}")
    return flow
