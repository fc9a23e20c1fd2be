"""A trained teacher from a .keras file: its LCONV layer, its activities and its logits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from edge_agent.console.exit_codes import UserError


@dataclass(frozen=True)
class Teacher:
    """`network`: raw pixels -> (pooled LCONV activities (batch, filters), logits (batch, classes))."""

    path: Path
    lconv: str
    filters: int
    classes: int
    parameters: int
    network: Any


def load_teacher(path: Path, lconv: str | None, image_shape: tuple[int, int, int]) -> Teacher:
    """Open a .keras file; UserError says what is wrong with it, or lists the layers that could be LCONV."""
    try:
        loaded = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()
        raise UserError(f"teacher {path}: not a readable .keras file ({reason[0] if reason else error})") from None
    loaded = in_float32(loaded)
    layer = find_lconv(loaded, lconv)
    _check_input(path, loaded, image_shape)
    logits = _logits_of(loaded)
    pooled = keras.layers.GlobalAveragePooling2D(dtype="float32", name="lconv_activity")(keras.ops.relu(layer.output))
    network = keras.Model(loaded.inputs[0], [pooled, logits])
    return Teacher(path, layer.name, int(layer.output.shape[-1]), int(logits.shape[-1]), loaded.count_params(), network)


def in_float32(network: Any) -> Any:
    """Return a network trained in mixed precision as one that computes in float32, which TFLite can convert."""
    config = network.get_config()
    plain = _without_mixed_policies(config)
    if plain == config:
        return network
    copy = type(network).from_config(plain)
    for target, source in zip(copy.variables, network.variables, strict=True):
        target.assign(source)
    return copy


def _without_mixed_policies(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _without_mixed_policies(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_without_mixed_policies(value) for value in config)
    return "float32" if config in ("mixed_bfloat16", "mixed_float16") else config


def find_lconv(network: Any, name: str | None) -> Any:
    """Return the layer called `name`, or without a name the last one whose output is a map of more than one filter."""
    maps = [layer for layer in network.layers if _is_feature_map(layer)]
    if not maps:
        raise UserError("teacher: no layer puts out a feature map (batch, height, width, filters)")
    if name is None:
        return maps[-1]
    for layer in maps:
        if layer.name == name:
            return layer
    candidates = ", ".join(f"{layer.name} ({layer.output.shape[-1]} filters)" for layer in maps[-8:])
    raise UserError(f"teacher: no feature map is called {name!r}; the last candidates are {candidates}")


def _is_feature_map(layer: Any) -> bool:
    if isinstance(layer, keras.layers.InputLayer):
        return False
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):
        return False
    return len(shape) == 4 and shape[-1] is not None and shape[-1] > 1


def _check_input(path: Path, network: Any, image_shape: tuple[int, int, int]) -> None:
    expected = network.inputs[0].shape[1:]
    if len(network.inputs) != 1 or len(expected) != 3:
        raise UserError(f"teacher {path}: expected one image input, it takes {[i.shape for i in network.inputs]}")
    if any(e is not None and e != s for e, s in zip(expected, image_shape, strict=True)):
        raise UserError(f"teacher {path}: takes images of {tuple(expected)}, the data set has {image_shape}")


def _logits_of(network: Any) -> Any:
    """Scores before the softmax; a last layer with a softmax inside is opened."""
    last = network.layers[-1]
    if isinstance(last, keras.layers.Softmax | keras.layers.Activation) and not isinstance(last, keras.layers.ReLU):
        return last.input
    if getattr(getattr(last, "activation", None), "__name__", "") == "softmax":
        # softmax(log p) = p: the logarithm of its answers serves as logits, whatever the last layer is.
        return keras.ops.log(keras.ops.maximum(network.outputs[0], 1e-9))
    return network.outputs[0]
