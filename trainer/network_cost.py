"""What a network costs on a device: multiply-accumulates, parameters, artifact bytes and tensor arena.

Works on a built Keras network by its layers' names and shapes; needs Keras only to build one by name.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.console.exit_codes import UserError
from trainer.device_profiles import Precision

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "dynamic", "int8")
# Flatbuffer text around the weights: names, shapes and quantisation, measured on files of TensorFlow 2.21.
FILE_BYTES = 2_000
FILE_BYTES_PER_OPERATION = 260
# Each output channel of an int8 convolution has a float scale and an int64 zero point, for kernel and for bias.
CHANNEL_QUANTISATION_BYTES = 24


@dataclass(frozen=True)
class Operation:
    """One layer call: tensors by number, shapes without the batch axis."""

    kind: frozenset[str]  # class names of the layer and its bases
    name: str
    inputs: tuple[int, ...]
    output: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weights: Mapping[str, tuple[int, ...]]

    def is_a(self, *names: str) -> bool:
        """Tell whether the layer is of one of these classes."""
        return not self.kind.isdisjoint(names)


@dataclass(frozen=True)
class NetworkCost:
    """Per image. `macs` and `parameters` are exact; artifact and arena bytes are estimated per precision."""

    parameters: int  # as Keras counts them, BN statistics included
    macs: int
    artifact_bytes: Mapping[Precision, int]
    arena_bytes: Mapping[Precision, int]  # tensors and im2col scratch of TFLite's built-in kernels, one thread

    def memory_bytes(self, precision: Precision) -> int:
        """What the student adds to an interpreter that is already there: its file in memory and its arena."""
        return self.artifact_bytes[precision] + self.arena_bytes[precision]


def network_cost(network: Any) -> NetworkCost:
    """Cost of one image through a functional or sequential Keras network with a fixed input size."""
    operations = _operations(network)
    return NetworkCost(
        parameters=int(network.count_params()),
        macs=sum(_macs(operation) for operation in operations),
        artifact_bytes={precision: _artifact_bytes(operations, precision) for precision in PRECISIONS},
        arena_bytes={precision: _arena_bytes(operations, precision) for precision in PRECISIONS},
    )


def student_cost(name: str, image_shape: tuple[int, int, int], width: int) -> NetworkCost:
    """Cost of a student by its network's name: pixels, trunk, bridge of `width` filters, spatial mean."""
    import keras

    from trainer.networks.catalogue import trunk

    pixels = keras.Input(image_shape)
    shades = (127.5,) * image_shape[2]
    flow = trunk(name, pixels, "", image_shape[:2], shades, shades)
    flow = keras.layers.Conv2D(width, 1, use_bias=False, name="bridge")(flow)
    flow = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bridge_bn")(flow))
    return network_cost(keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(flow)))


ELEMENTWISE = ("Activation", "BatchNormalization", "Dropout", "ReLU", "LeakyReLU", "Rescaling", "Normalization")
# TFLite fuses padding into the convolution behind it, and reshapes without a copy.
IN_PLACE = (*ELEMENTWISE, "Flatten", "Reshape", "ZeroPadding2D")
CONVOLUTIONS = ("BaseConv", "BaseDepthwiseConv", "BaseSeparableConv", "BaseConvTranspose")


def _macs(operation: Operation) -> int:
    """Products summed into outputs; additions, pooling, BN and activations are not counted, as is usual."""
    kernels = {name: math.prod(shape) for name, shape in operation.weights.items() if len(shape) >= 2}
    positions = math.prod(operation.output_shape[:-1])
    if operation.is_a("BaseConvTranspose"):
        return math.prod(operation.input_shape[:-1]) * kernels["kernel"]
    if operation.is_a(*CONVOLUTIONS, "Dense"):
        return positions * sum(kernels.values())
    if kernels:
        raise UserError(
            f"layer {operation.name} has weights whose MACs cannot be counted; expected convolutions and Dense"
        )
    return 0


def _artifact_bytes(operations: Sequence[Operation], precision: Precision) -> int:
    """A TFLite file: BN behind a convolution is folded into its bias, elsewhere it is a scale and an offset."""
    size = {"float32": 4, "float16": 2, "dynamic": 1, "int8": 1}[precision]
    vector_size = {"float32": 4, "float16": 2, "dynamic": 4, "int8": 4}[precision]
    makers = {operation.output: operation for operation in operations}
    total, stored = FILE_BYTES, set[str]()
    for operation in operations:
        # A layer that is called twice is stored once.
        weights = {} if operation.name in stored else operation.weights
        stored.add(operation.name)
        kernels = [shape for shape in weights.values() if len(shape) >= 2]
        channels = operation.output_shape[-1]
        if kernels:
            total += size * sum(math.prod(shape) for shape in kernels) + vector_size * channels
            total += CHANNEL_QUANTISATION_BYTES * channels if precision == "int8" else 0
            total += 4 * channels if precision == "dynamic" else 0
        elif operation.is_a("BatchNormalization") and not _folds(operation, makers):
            total += 2 * (1 if precision == "int8" else vector_size) * channels
            total += FILE_BYTES_PER_OPERATION
        if not operation.is_a(*ELEMENTWISE):
            total += FILE_BYTES_PER_OPERATION
    return total


def _folds(operation: Operation, makers: Mapping[int, Operation]) -> bool:
    maker = makers.get(operation.inputs[0])
    return maker is not None and maker.is_a(*CONVOLUTIONS, "Dense")


def _arena_bytes(operations: Sequence[Operation], precision: Precision) -> int:
    """Largest sum of live tensors and the convolution's own scratch; the network's input lives all the time.

    The same as the built-in kernels report for float32 and int8 of wrn-D-K and MobileNetV2, but 16 % less for ResNet50
    (tests/unit/test_fit.py). Under XNNPACK there is no im2col scratch, but a second, packed copy of the weights.
    """
    element = 1 if precision == "int8" else 4
    last_use = {tensor: step for step, operation in enumerate(operations) for tensor in operation.inputs}
    outside = math.prod(operations[0].input_shape)
    live: dict[int, int] = {}
    peak = 0
    for step, operation in enumerate(operations):
        dying = [tensor for tensor in set(operation.inputs) if last_use[tensor] == step]
        if operation.is_a(*IN_PLACE) and dying:
            live.pop(dying[0], None)
        shape = operation.input_shape if operation.is_a("ZeroPadding2D") else operation.output_shape
        live[operation.output] = math.prod(shape)
        peak = max(peak, element * sum(live.values()) + _scratch_bytes(operation, precision))
        for tensor in dying:
            live.pop(tensor, None)
    return peak + element * outside


def _scratch_bytes(operation: Operation, precision: Precision) -> int:
    """im2col of a convolution that is not 1x1 with stride 1; a dynamic-range one quantises its input first."""
    if not operation.is_a("BaseConv"):
        return 0
    kernel = operation.weights["kernel"]
    positions = math.prod(operation.output_shape[:-1])
    inputs, outputs = math.prod(operation.input_shape), math.prod(operation.output_shape)
    plain = math.prod(kernel[:-2]) == 1 and positions * operation.input_shape[-1] == inputs
    patches = 0 if plain else positions * math.prod(kernel[:-1])
    if precision == "dynamic":
        return patches + inputs + 4 * outputs
    return patches * (1 if precision == "int8" else 4)


def _operations(network: Any) -> list[Operation]:
    """Layer calls in the order they run, nested networks laid open."""
    collected: list[Operation] = []
    numbers: dict[int, int] = {}
    _collect(network, collected, numbers, [])
    if not collected:
        raise UserError(f"network {getattr(network, 'name', '?')} has no layers to cost")
    return collected


def _collect(network: Any, collected: list[Operation], numbers: dict[int, int], keep: list[Any]) -> None:
    graph = getattr(network, "_functional", None) or network
    if not hasattr(graph, "_nodes_by_depth"):
        raise UserError(
            f"network {getattr(network, 'name', '?')} is neither functional nor sequential, or not built; "
            "its layers cannot be costed"
        )
    # Keras has no public way to walk the calls of a shared layer; this is what its own summary uses.
    nodes_by_depth = graph._nodes_by_depth  # noqa: SLF001
    for depth in sorted(nodes_by_depth, reverse=True):
        for node in nodes_by_depth[depth]:
            layer = node.operation
            if not node.input_tensors:
                continue
            inside = getattr(layer, "_functional", None) or layer
            if hasattr(inside, "_nodes_by_depth"):
                for outer, inner in zip(node.input_tensors, inside.inputs, strict=True):
                    numbers[id(inner)] = _number(outer, numbers, keep)
                _collect(layer, collected, numbers, keep)
                for outer, inner in zip(node.output_tensors, inside.outputs, strict=True):
                    numbers[id(outer)] = _number(inner, numbers, keep)
                continue
            collected.append(_operation(layer, node, numbers, keep))


def _number(tensor: Any, numbers: dict[int, int], keep: list[Any]) -> int:
    if id(tensor) not in numbers:
        numbers[id(tensor)] = len(keep)
        keep.append(tensor)  # so that no id is used twice
    return numbers[id(tensor)]


def _operation(layer: Any, node: Any, numbers: dict[int, int], keep: list[Any]) -> Operation:
    output = node.output_tensors[0]
    shapes = [tuple(tensor.shape[1:]) for tensor in (node.input_tensors[0], output)]
    if any(axis is None for shape in shapes for axis in shape):
        raise UserError(f"layer {layer.name} has an open shape {shapes}; expected a network with a fixed input size")
    return Operation(
        kind=frozenset(cls.__name__ for cls in type(layer).__mro__),
        name=layer.name,
        inputs=tuple(_number(tensor, numbers, keep) for tensor in node.input_tensors),
        output=_number(output, numbers, keep),
        input_shape=shapes[0],
        output_shape=shapes[1],
        weights={weight.name: tuple(weight.shape) for weight in getattr(layer, "weights", ())},
    )
