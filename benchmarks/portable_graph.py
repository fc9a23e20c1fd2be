"""A student as a short list of plain layers, written as ONNX and as ncnn files: the same network for every engine."""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.tvm_export.graph_reader import import_tflite, read_network
from trainer.tvm_export.layers import Group, Source, Window
from trainer.tvm_export.outcome import UnsupportedStudentError

Array = NDArray[np.float32]


@dataclass
class Layer:
    """One layer; `inputs` are names of earlier layers, the first of all is `image`."""

    kind: str  # convolution, affine (x * scale + shift per channel), relu, add, max_pool, average_pool
    name: str
    inputs: list[str]
    arrays: list[Array] = field(default_factory=list)
    window: Window | None = None
    relu: bool = False


def portable_layers(tflite_file: Path) -> tuple[list[Layer], tuple[int, int, int], int]:
    """Layers of a float32 TFLite student, the image's (height, width, channels) and the width."""
    network = read_network(import_tflite(tflite_file), lanes=1)
    names: dict[int, str] = {network.image: "image"}
    layers: list[Layer] = []
    for index, group in enumerate(network.groups):
        layers += _group_layers(group, f"g{index}", names)
    image = network.tensors[network.image]
    return layers, (image.height, image.width, image.channels), network.tensors[network.features].channels


def _group_layers(group: Group, prefix: str, names: dict[int, str]) -> list[Layer]:
    """Layers of one group: bias and a directly following ReLU go into the convolution, as converters do."""
    layers: list[Layer] = []
    values: dict[Source, str] = {Source("anchor"): names[group.source] if group.anchor == "copy" else prefix}
    if group.anchor != "copy":
        arrays = [group.weights.astype(np.float32), np.zeros(group.shape[2], np.float32)] if group.weights.size else []
        layers.append(Layer(group.anchor, prefix, [names[group.source]], arrays, group.window))
    readers = _readers(group)
    for index, step in enumerate(group.steps):
        operands = [_operand(source, values, group, names) for source in step.sources]
        source, result = step.sources[0], Source("step", index)
        alone = len(layers) and values.get(source) == layers[-1].name and readers.get(source) == 1
        if step.operation == "relu" and alone and layers[-1].kind == "convolution":
            layers[-1].relu = True
            values[result] = layers[-1].name
        elif step.operation == "add" and alone and layers[-1].arrays and not isinstance(operands[1], str):
            layers[-1].arrays[1] = layers[-1].arrays[1] + operands[1]
            values[result] = layers[-1].name
        else:
            layers.append(_layer(step.operation, f"{prefix}_{index}", operands, group.shape[2]))
            values[result] = layers[-1].name
    names.update({tensor: values[source] for source, tensor in group.outputs})
    return layers


def _readers(group: Group) -> dict[Source, int]:
    """How many steps and tensors read each value of the group."""
    counts: dict[Source, int] = {}
    for source in [s for step in group.steps for s in step.sources] + [source for source, _ in group.outputs]:
        counts[source] = counts.get(source, 0) + 1
    return counts


def _operand(source: Source, values: dict[Source, str], group: Group, names: dict[int, str]) -> Any:
    if source.kind == "tensor":
        return names[group.operands[source.index]]
    if source.kind == "vector":
        return group.vectors[source.index]
    if source.kind == "scalar":
        return np.full(group.shape[2], source.value, np.float32)
    return values[source]


def _layer(operation: str, name: str, operands: list[Any], channels: int) -> Layer:
    tensors = [operand for operand in operands if isinstance(operand, str)]
    constants = [operand for operand in operands if not isinstance(operand, str)]
    if operation == "relu" or (operation == "add" and len(tensors) == 2):
        return Layer(operation, name, tensors)
    if operation in ("add", "multiply") and len(constants) == 1:
        ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        arrays = [constants[0], zeros] if operation == "multiply" else [ones, constants[0]]
        return Layer("affine", name, tensors, arrays)
    if operation == "subtract" and isinstance(operands[0], str) and len(constants) == 1:
        return Layer("affine", name, tensors, [np.ones(channels, np.float32), -constants[0]])
    raise UnsupportedStudentError(f"{operation} is not written as ONNX or ncnn here")


def write_onnx(tflite_file: Path, destination: Path) -> None:
    """Write the student as ONNX (NCHW, opset 13)."""
    try:
        import onnx
    except ImportError:
        raise SystemExit(
            "error: onnx is not installed, to write files for onnxruntime; expected pip install onnx"
        ) from None
    from onnx import TensorProto, helper, numpy_helper

    layers, (height, width, channels), features = portable_layers(tflite_file)
    nodes, initializers = [], []
    for layer in layers:
        arrays = list(layer.arrays)
        attributes: dict[str, Any] = {}
        if layer.window is not None:
            padding = layer.window.padding
            attributes = {"kernel_shape": layer.window.kernel, "strides": layer.window.strides}
            attributes["pads"] = [padding.top, padding.left, padding.bottom, padding.right]
        if layer.kind == "convolution":
            arrays[0] = np.ascontiguousarray(arrays[0].transpose(3, 2, 0, 1))
        if layer.kind == "affine":
            arrays += [np.zeros_like(arrays[0]), np.ones_like(arrays[0])]
            attributes["epsilon"] = 0.0
        initializers += [numpy_helper.from_array(a, f"{layer.name}.{i}") for i, a in enumerate(arrays)]
        inputs = layer.inputs + [f"{layer.name}.{i}" for i in range(len(arrays))]
        output = f"{layer.name}.linear" if layer.relu else layer.name
        nodes.append(helper.make_node(_ONNX[layer.kind], inputs, [output], **attributes))
        if layer.relu:
            nodes.append(helper.make_node("Relu", [output], [layer.name]))
    nodes.append(helper.make_node("Flatten", [layers[-1].name], ["features"], axis=1))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, height, width])
    answer = helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, features])
    graph = helper.make_graph(nodes, "student", [image], [answer], initializers)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(network)
    onnx.save(network, destination)


_ONNX = {
    "convolution": "Conv", "affine": "BatchNormalization", "relu": "Relu", "add": "Add", "max_pool": "MaxPool",
    "average_pool": "AveragePool",
}  # fmt: skip


def write_ncnn(tflite_file: Path, param_file: Path, bin_file: Path) -> None:
    """Write the student as ncnn's param and bin files, float32; every value that is read twice goes through Split."""
    layers, _, _ = portable_layers(tflite_file)
    uses: dict[str, int] = {}
    for layer in layers:
        for name in layer.inputs:
            uses[name] = uses.get(name, 0) + 1
    lines: list[list[str]] = [["Input", "image", "0", "1", "image"]]
    blobs, weights, taken = 1, b"", dict.fromkeys(uses, 0)

    def split(name: str) -> None:
        nonlocal blobs
        if uses.get(name, 0) > 1:
            copies = [f"{name}/{copy}" for copy in range(uses[name])]
            lines.append(["Split", f"{name}.split", "1", str(len(copies)), name, *copies])
            blobs += len(copies)

    split("image")
    for layer in layers:
        inputs = []
        for name in layer.inputs:
            inputs.append(f"{name}/{taken[name]}" if uses[name] > 1 else name)
            taken[name] += 1
        kind, parameters = _ncnn_parameters(layer)
        lines.append([kind, layer.name, str(len(inputs)), "1", *inputs, layer.name, *parameters])
        weights += _ncnn_weights(layer)
        blobs += 1
        split(layer.name)
    lines.append(["Flatten", "features", "1", "1", layers[-1].name, "features"])
    text = "\n".join(["7767517", f"{len(lines)} {blobs + 1}", *(" ".join(line) for line in lines)])
    param_file.write_text(text + "\n")
    bin_file.write_bytes(weights)


def _ncnn_parameters(layer: Layer) -> tuple[str, list[str]]:
    if layer.kind == "convolution":
        assert layer.window is not None
        (rows, columns), (stride_y, stride_x), pad = layer.window.kernel, layer.window.strides, layer.window.padding
        values = {0: layer.arrays[1].size, 1: columns, 11: rows, 3: stride_x, 13: stride_y, 4: pad.left, 14: pad.top}
        values |= {15: pad.right, 16: pad.bottom, 5: 1, 6: layer.arrays[0].size, 9: int(layer.relu)}
        return "Convolution", [f"{key}={value}" for key, value in values.items()]
    if layer.kind == "affine":
        return "BatchNorm", [f"0={layer.arrays[0].size}", "1=0.0"]
    if layer.kind == "add":
        return "BinaryOp", ["0=0"]
    if layer.kind == "relu":
        return "ReLU", []
    assert layer.window is not None
    (rows, columns), (stride_y, stride_x) = layer.window.kernel, layer.window.strides
    average = int(layer.kind == "average_pool")
    return "Pooling", [f"0={average}", f"1={columns}", f"11={rows}", f"2={stride_x}", f"12={stride_y}", "5=1"]


def _ncnn_weights(layer: Layer) -> bytes:
    if layer.kind == "convolution":
        flat = np.ascontiguousarray(layer.arrays[0].transpose(3, 2, 0, 1))
        return struct.pack("<I", 0) + flat.tobytes() + layer.arrays[1].tobytes()  # tag 0: float32
    if layer.kind == "affine":
        scale, shift = layer.arrays
        return b"".join(a.astype(np.float32).tobytes() for a in (scale, 0 * scale, np.ones_like(scale), shift))
    return b""
