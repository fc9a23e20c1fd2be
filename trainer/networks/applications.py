"""Networks of keras.applications: `keras:MobileNetV2`, or `keras:MobileNetV2:imagenet` with published weights."""

import importlib
from typing import Any

import keras
import keras.applications
import numpy as np
from numpy.typing import NDArray

from edge_agent.console.exit_codes import ExitCode, UserError

PREFIX = "keras:"
WEIGHTS = ("imagenet",)
COLOURS = 3  # what every one of them takes


def matches(name: str) -> bool:
    """Tell whether `name` asks for a network of keras.applications; UserError if there is none of that name."""
    if not name.startswith(PREFIX):
        return False
    _parse(name)
    return True


def trunk(name: str, pixels: Any, prefix: str, size: tuple[int | None, int | None]) -> Any:
    """Raw pixels 0..255 (batch, height, width, 1 or 3) -> its last feature map, after its own preprocessing."""
    network, weights = _parse(name)
    build = getattr(keras.applications, network)
    try:
        body = build(include_top=False, weights=weights, input_shape=(*size, COLOURS))
    except ValueError as error:
        raise UserError(f"network {name}: {_first_line(error)}", ExitCode.CONFIGURATION) from None
    except Exception as error:
        if weights is None:
            raise
        raise UserError(
            f"network {name}: its weights cannot be downloaded ({_first_line(error)}); expected a network, or "
            f"the file in ~/.keras/models, or {PREFIX}{network} to train from scratch"
        ) from None
    named = keras.Model(body.inputs[0], body.outputs[0], name=f"{prefix}{network.lower()}")
    return named(_preprocessed(pixels, build, prefix))


def preprocessing(module: Any, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(kernel (channels, 3), bias (3,)), float32, of what `module.preprocess_input` does to a pixel 0..255.

    Found by asking it: all of them are a matrix and an offset (scaling, means, red and blue exchanged). A grey value
    stands for all three colours.
    """
    probes = np.zeros((COLOURS + 1, 1, 1, COLOURS), np.float32)
    probes[np.arange(COLOURS), 0, 0, np.arange(COLOURS)] = 255
    answers = np.asarray(module.preprocess_input(probes))[:, 0, 0]
    bias = answers[-1]
    kernel = (answers[:-1] - bias) / 255
    return (kernel.sum(axis=0, keepdims=True) if channels == 1 else kernel).astype(np.float32), bias.astype(np.float32)


def _preprocessed(pixels: Any, build: Any, prefix: str) -> Any:
    module = importlib.import_module(f"keras.applications.{build.__module__.rpartition('.')[2]}")
    layer = keras.layers.Conv2D(COLOURS, 1, trainable=False, dtype="float32", name=f"{prefix}preprocess")
    flow = layer(pixels)
    kernel, bias = preprocessing(module, pixels.shape[-1])
    layer.set_weights([kernel[None, None], bias])
    return flow


def _parse(name: str) -> tuple[str, str | None]:
    """`keras:NAME[:imagenet]` -> its name as Keras spells it, and the weights."""
    wanted, _, weights = name.removeprefix(PREFIX).partition(":")
    known = {entry.lower(): entry for entry in dir(keras.applications) if entry[0].isupper()}
    if wanted.lower() not in known:
        raise UserError(
            f"network {name!r} is unknown; keras.applications has {', '.join(known.values())}", ExitCode.CONFIGURATION
        )
    if weights and weights not in WEIGHTS:
        raise UserError(f"network {name!r}: weights {weights!r} are unknown; expected imagenet", ExitCode.CONFIGURATION)
    return known[wanted.lower()], weights or None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
