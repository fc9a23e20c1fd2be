"""Networks by name."""

from collections.abc import Sequence
from typing import Any

import keras

from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.networks import airbench, plain, vgg, wide_resnet
from trainer.networks.layers import normalise_pixels

NAMES = "wrn-D-K (D = 10, 16, 22, 28, 40 ...), vgg11, vgg13, vgg16, vgg19, airbench, cnn-A-B-..."


def check_name(name: str) -> None:
    """UserError if no network has that name."""
    if not any(family.matches(name) for family in (wide_resnet, vgg, plain, airbench)):
        raise UserError(f"network {name!r} is unknown; expected {NAMES}", ExitCode.CONFIGURATION)


def trunk(name: str, pixels: Any, prefix: str, size: tuple[int, int]) -> Any:
    """Everything up to the last feature map, for images of `size` (height, width)."""
    check_name(name)
    if vgg.matches(name):
        return vgg.trunk(name, pixels, prefix, size)
    family: Any = next(family for family in (wide_resnet, plain, airbench) if family.matches(name))
    return family.trunk(name, pixels, prefix)


def classifier(
    name: str, image_shape: tuple[int, int, int], classes: int, mean: Sequence[float], deviation: Sequence[float],
    any_size: bool = False,
) -> Any:  # fmt: skip
    """Trainable teacher: raw pixels -> logits. Layers `lconv` (last feature map), `pool` and `fc` bear these names."""
    pixels = keras.Input((None, None, image_shape[2]) if any_size else image_shape, name="pixels")
    flow = trunk(name, normalise_pixels(pixels, mean, deviation, "normalise"), "", image_shape[:2])
    flow = keras.layers.Activation("linear", name="lconv")(flow)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(flow)
    return keras.Model(pixels, keras.layers.Dense(classes, name="fc", dtype="float32")(pooled), name=name)
