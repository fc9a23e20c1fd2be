"""Relax graph of a float32 TFLite student -> groups of one kernel each, epilogues fused."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.tvm_export.layers import Group, Halo, Network, Source, Step, Tensor, Window
from trainer.tvm_export.outcome import UnsupportedStudentError

UNARY = {
    "relax.nn.relu": "relu",
    "relax.sigmoid": "sigmoid",
    "relax.tanh": "tanh",
    "relax.erf": "erf",
    "relax.exp": "exp",
    "relax.nn.gelu": "gelu",
    "relax.nn.gelu_tanh": "gelu_tanh",
    "relax.negative": "negative",
}
BINARY = {
    "relax.add": "add",
    "relax.subtract": "subtract",
    "relax.multiply": "multiply",
    "relax.divide": "divide",
    "relax.maximum": "maximum",
    "relax.minimum": "minimum",
}
NO_WEIGHTS = np.zeros((0, 0, 0, 0), np.float32)
POOLS = {"relax.nn.max_pool2d": "max_pool", "relax.nn.avg_pool2d": "average_pool"}


def import_tflite(path: Path) -> Any:
    """Read a float32 TFLite file as a Relax module."""
    import tflite
    from tvm.relax.frontend.tflite import from_tflite

    try:
        return from_tflite(tflite.Model.GetRootAsModel(path.read_bytes(), 0))
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedStudentError(f"{path}: TVM can't import it, expected a float32 file: {first_line}") from error


def read_network(module: Any, lanes: int) -> Network:
    """Group the operations of `module["main"]`; channels are stored in whole vectors of `lanes` floats."""
    return _GraphReader(module["main"], lanes).read()


class _GraphReader:
    """Walks the bindings in order; every value is a step of some group, tensors appear where groups meet."""

    def __init__(self, function: Any, lanes: int) -> None:
        self._function = function
        self._lanes = lanes
        self._tensors: list[Tensor] = []
        self._groups: list[Group] = []
        self._homes: dict[Any, tuple[int, Source]] = {}  # variable -> (group, where in it)
        self._stored: dict[tuple[int, Source], int] = {}  # -> tensor
        self._turned: dict[Any, NDArray[Any]] = {}  # variables that are a constant with its axes in another order
        self._image = -1

    def read(self) -> Network:
        image = self._function.params[0]
        _, height, width, channels = _shape_of(image)
        self._image = self._add_tensor(Tensor(height, width, channels, channels, shape=(1, height, width, channels)))
        self._open_group(image, Group("copy", self._image, (height, width, channels), Window((1, 1), (1, 1))))
        for block in self._function.body.blocks:
            for binding in block.bindings:
                self._read_binding(binding.var, binding.value)
        features = self._tensor_of(self._function.body.body)
        tensor = self._tensors[features]
        if (tensor.height, tensor.width) != (1, 1):
            raise UnsupportedStudentError(f"output is {_shape_of(self._function.body.body)}, expected (1, width)")
        tensor.stride, tensor.shape = tensor.channels, (1, tensor.channels)
        return Network(self._tensors, self._groups, self._image, features)

    def _read_binding(self, variable: Any, value: Any) -> None:
        name = getattr(getattr(value, "op", None), "name", type(value).__name__)
        if name in UNARY:
            self._add_step(variable, UNARY[name], [value.args[0]])
        elif name in BINARY:
            self._add_step(variable, BINARY[name], list(value.args))
        elif name == "relax.clip":
            low, high = (float(a.value.value) for a in value.args[1:])
            self._add_step(variable, "minimum", [self._step(value.args[0], "maximum", low), high])
        elif name == "relax.nn.conv2d":
            self._read_convolution(variable, value)
        elif name in POOLS:
            self._read_pool(variable, value, POOLS[name])
        elif name == "relax.mean":
            self._read_mean(variable, value)
        elif name == "relax.matmul":
            self._read_dense(variable, value)
        elif name == "relax.permute_dims":
            self._read_turned(variable, value)
        elif name in ("relax.reshape", "relax.squeeze", "Var"):
            self._read_alias(variable, value if name == "Var" else value.args[0])
        else:
            raise UnsupportedStudentError(f"operation {name} has no TVM kernel here")

    def _read_convolution(self, variable: Any, call: Any) -> None:
        attrs, weights = call.attrs, _constant(call.args[1])
        regular = attrs.data_layout == "NHWC" and attrs.kernel_layout == "HWIO" and int(attrs.groups) == 1
        if not regular or weights is None or any(int(d) != 1 for d in attrs.dilation):
            raise UnsupportedStudentError(f"convolution {_shape_of(variable)}: grouped, dilated or not constant")
        top, left, bottom, right = map(int, attrs.padding)
        window = Window(weights.shape[:2], _pair(attrs.strides), Halo(top, left, bottom, right))
        self._anchor(variable, "convolution", call.args[0], window, weights)

    def _read_pool(self, variable: Any, call: Any, anchor: str) -> None:
        attrs = call.attrs
        if any(int(p) for p in attrs.padding):
            raise UnsupportedStudentError(f"{anchor} {_shape_of(variable)} with padding")
        self._anchor(variable, anchor, call.args[0], Window(_pair(attrs.pool_size), _pair(attrs.strides)))

    def _read_mean(self, variable: Any, call: Any) -> None:
        if [int(a) for a in call.attrs.axis] != [1, 2]:
            raise UnsupportedStudentError(f"mean over axes {list(call.attrs.axis)}, expected height and width")
        _, height, width, _ = _shape_of(call.args[0])
        self._anchor(variable, "average_pool", call.args[0], Window((height, width), (1, 1)))

    def _read_dense(self, variable: Any, call: Any) -> None:
        weights = self._turned.get(call.args[1], _constant(call.args[1]))
        tensor = self._tensors[self._tensor_of(call.args[0])]
        if weights is None or weights.shape[0] != tensor.height * tensor.width * tensor.channels:
            raise UnsupportedStudentError(f"matmul {_shape_of(variable)}: weights are not constant")
        kernel = weights.reshape(tensor.height, tensor.width, tensor.channels, -1)  # a valid convolution
        self._anchor(variable, "convolution", call.args[0], Window(kernel.shape[:2], (1, 1)), kernel)

    def _read_turned(self, variable: Any, call: Any) -> None:
        """TFLite keeps a dense layer's weights the other way round."""
        weights = _constant(call.args[0])
        if weights is None:
            raise UnsupportedStudentError(f"transposition of {_shape_of(call.args[0])}, which is not constant")
        axes = call.attrs.axes
        self._turned[variable] = np.transpose(weights, None if axes is None else [int(axis) for axis in axes])

    def _read_alias(self, variable: Any, source: Any) -> None:
        """Flattening and squeezing move nothing: a dense layer reads the image-like tensor itself."""
        self._homes[variable] = self._homes[source]

    def _anchor(self, variable: Any, anchor: str, source: Any, window: Window, weights: Any = NO_WEIGHTS) -> None:
        tensor = self._tensor_of(source)
        self._tensors[tensor].halo = self._tensors[tensor].halo.union(window.padding)
        shape = _shape_of(variable)
        height, width = (shape[1], shape[2]) if len(shape) == 4 else (1, 1)
        self._open_group(variable, Group(anchor, tensor, (height, width, shape[-1]), window, weights))

    def _open_group(self, variable: Any, group: Group) -> None:
        self._groups.append(group)
        self._homes[variable] = (len(self._groups) - 1, Source("anchor"))

    def _add_step(self, variable: Any, operation: str, operands: list[Any]) -> None:
        self._homes[variable] = self._step_home(operation, operands)

    def _step(self, operand: Any, operation: str, number: float) -> tuple[int, Source]:
        return self._step_home(operation, [operand, number])

    def _step_home(self, operation: str, operands: list[Any]) -> tuple[int, Source]:
        """Put a step in the latest group that it reads: everything else it reads is ready by then."""
        homes = [self._home_of(operand) for operand in operands]
        if all(home is None for home in homes):
            raise UnsupportedStudentError(f"{operation} of constants only")
        index = max(home[0] for home in homes if home is not None)
        group = self._groups[index]
        sources = []
        for operand, home in zip(operands, homes, strict=True):
            if home is None:
                sources.append(self._constant_source(group, operand))
            elif home[0] == index:
                sources.append(home[1])
            else:
                sources.append(self._operand_source(group, home))
        group.steps.append(Step(operation, tuple(sources)))
        return index, Source("step", len(group.steps) - 1)

    def _home_of(self, operand: Any) -> tuple[int, Source] | None:
        if isinstance(operand, tuple):
            return operand
        return None if isinstance(operand, float) or _constant(operand) is not None else self._homes[operand]

    def _constant_source(self, group: Group, operand: Any) -> Source:
        values = np.asarray(operand if isinstance(operand, float) else operand.value.numpy(), np.float32)
        if values.size == 1:
            return Source("scalar", value=float(values.reshape(())))
        if values.size != group.shape[2] or values.shape[-1] != values.size:
            raise UnsupportedStudentError(f"constant of shape {values.shape}, expected one value per channel")
        group.vectors.append(values.reshape(-1))
        return Source("vector", len(group.vectors) - 1)

    def _operand_source(self, group: Group, home: tuple[int, Source]) -> Source:
        tensor = self._store(home)
        if self._groups[home[0]].shape != group.shape:
            raise UnsupportedStudentError(f"element-wise {self._groups[home[0]].shape} with {group.shape}")
        if tensor not in group.operands:
            group.operands.append(tensor)
        return Source("tensor", group.operands.index(tensor))

    def _tensor_of(self, variable: Any) -> int:
        group, source = self._homes[variable]
        if (group, source) == (0, Source("anchor")):
            # The image itself: it has no room for a halo, so the first group copies it.
            self._groups[0].steps.append(Step("identity", (source,)))
            self._homes[variable] = (0, Source("step", len(self._groups[0].steps) - 1))
        return self._store(self._homes[variable])

    def _store(self, home: tuple[int, Source]) -> int:
        if home not in self._stored:
            group = self._groups[home[0]]
            height, width, channels = group.shape
            stride = channels if group.anchor == "copy" else -(-channels // self._lanes) * self._lanes
            self._stored[home] = self._add_tensor(Tensor(height, width, channels, stride))
            group.outputs.append((home[1], self._stored[home]))
        return self._stored[home]

    def _add_tensor(self, tensor: Tensor) -> int:
        self._tensors.append(tensor)
        return len(self._tensors) - 1


def _shape_of(variable: Any) -> tuple[int, ...]:
    ty = variable.ty if hasattr(variable, "ty") else variable.struct_info
    return tuple(int(d) for d in ty.shape)


def _constant(expression: Any) -> NDArray[Any] | None:
    if type(expression).__name__ != "GenericConst":
        return None
    return np.asarray(expression.value.numpy())


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(v) for v in values)
    return first, second
