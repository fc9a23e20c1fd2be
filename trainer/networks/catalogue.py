"""Networks by name."""

from collections.abc import Sequence
from typing import Any

import keras

from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.networks import airbench, applications, plain, vgg, wide_resnet
from trainer.networks.layers import normalise_pixels

NAMES = "wrn-D-K (D = 10, 16, 22, 28, 40 ...), vgg11, vgg13, vgg16, vgg19, airbench, cnn-A-B-..., keras:NAME"


def check_name(name: str) -> None:
    """UserError if no network has that name."""
    if not any(family.matches(name) for family in (wide_resnet, vgg, plain, airbench, applications)):
        raise UserError(f"network {name!r} is unknown; expected {NAMES}", ExitCode.CONFIGURATION)


def trunk(
    name: str, pixels: Any, prefix: str, size: tuple[int, int], mean: Sequence[float], deviation: Sequence[float]
) -> Any:
    """Raw pixels 0..255 -> the last feature map, for images of `size` (height, width).

    `mean` and `deviation` of each channel normalise the pixels; a network of keras.applications has its own way.
    """
    check_name(name)
    if applications.matches(name):
        return applications.trunk(name, pixels, prefix, pixels.shape[1:3])
    normalised = normalise_pixels(pixels, mean, deviation, f"{prefix}normalise")
    if vgg.matches(name):
        return vgg.trunk(name, normalised, prefix, size)
    family: Any = next(family for family in (wide_resnet, plain, airbench) if family.matches(name))
    return family.trunk(name, normalised, prefix)


def classifier(
    name: str, image_shape: tuple[int, int, int], classes: int, mean: Sequence[float], deviation: Sequence[float],
    any_size: bool = False,
) -> Any:  # fmt: skip
    """Trainable teacher: raw pixels -> logits. Layers `lconv` (last feature map), `pool` and `fc` bear these names."""
    pixels = keras.Input((None, None, image_shape[2]) if any_size else image_shape, name="pixels")
    flow = trunk(name, pixels, "", image_shape[:2], mean, deviation)
    flow = keras.layers.Activation("linear", name="lconv")(flow)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(flow)
    return keras.Model(
        pixels, keras.layers.Dense(classes, name="fc", dtype="float32")(pooled), name=name.replace(":", "-")
    )
