"""What every kernel has in common: its arguments, its epilogue, the zeros of its outputs' halos."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812 - TVM's own name for it

from trainer.tvm_export.elementwise import OPERATIONS
from trainer.tvm_export.layers import Group, Network, Source, Tensor

Expression = Any  # TVM's expressions have no types that mypy can see
ZERO = 0.0


def vector(start: Expression, lanes: int) -> Expression:
    """Index of `lanes` neighbours from `start` on."""
    return tirx.Ramp(start, 1, lanes) if lanes > 1 else start


def splat(value: float, lanes: int) -> Expression:
    """Vector of one value."""
    constant = tirx.const(value, "float32")
    return tirx.Broadcast(constant, lanes) if lanes > 1 else constant


class KernelFrame:
    """Arguments of a group's kernel, and its epilogue on demand."""

    def __init__(self, network: Network, group: Group, lanes: int, packed: NDArray[np.float32] | None) -> None:
        self.network, self.group, self.lanes = network, group, lanes
        self.inputs = list(dict.fromkeys([group.source, *group.operands]))
        self.constants = ([] if packed is None else [packed.reshape(-1)]) + [self._whole(v) for v in group.vectors]
        self._packed = packed is not None
        self._buffers: dict[int, Expression] = {}
        self._constant_buffers: list[Expression] = []

    def build(self, name: str, body: Callable[["KernelFrame"], None]) -> Any:
        """Return the kernel as a PrimFunc; `body` writes what is the anchor's own."""
        with IRBuilder() as builder, T.prim_func():
            T.func_name(name)
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "global_symbol": name})
            for tensor in self.inputs:
                self._buffers[tensor] = self._argument(f"t{tensor}", self.network.tensors[tensor])
            for index, constant in enumerate(self.constants):
                buffer = T.buffer((constant.size,), "float32")
                self._constant_buffers.append(T.arg(f"c{index}", buffer))
            for _, tensor in self.group.outputs:
                self._buffers[tensor] = self._argument(f"t{tensor}", self.network.tensors[tensor])
            for _, tensor in self.group.outputs:
                self._clear_halo(tensor)
            body(self)
        return builder.get()

    @property
    def source(self) -> Tensor:
        """The tensor that the anchor reads."""
        return self.network.tensors[self.group.source]

    @property
    def weights(self) -> Expression:
        """Buffer of the packed weights, flat."""
        return self._constant_buffers[0]

    def load(self, tensor: int, start: Expression, lanes: int) -> Expression:
        """Read `lanes` neighbours from flat position `start` of a tensor."""
        return self._buffers[tensor][vector(start, lanes)]

    def image_pixel(self, y: Expression, x: Expression, channel: Expression) -> Expression:
        """Read one value of the image as it comes from outside."""
        return self._buffers[self.network.image][0, y, x, channel]

    def epilogue(self, anchor: Expression, y: Expression, x: Expression, channel: Expression, lanes: int) -> None:
        """Apply the group's steps to the anchor's values at one pixel, store what others read."""
        results: list[Expression] = []
        for step in self.group.steps:
            operands = [self._read(source, anchor, results, y, x, channel, lanes) for source in step.sources]
            results.append(T.Bind(OPERATIONS[step.operation](lanes, *operands)))
        for source, tensor in self.group.outputs:
            value = self._read(source, anchor, results, y, x, channel, lanes)
            self._store(tensor, value, y, x, channel, lanes)

    def _read(
        self, source: Source, anchor: Expression, results: list[Expression], y: Any, x: Any, channel: Any, lanes: int
    ) -> Expression:
        if source.kind == "anchor":
            return anchor
        if source.kind == "step":
            return results[source.index]
        if source.kind == "scalar":
            return splat(source.value, lanes)
        if source.kind == "vector":
            return self._constant_buffers[source.index + self._packed][vector(channel, lanes)]
        tensor = self.group.operands[source.index]
        return self.load(tensor, self.network.tensors[tensor].offset(y, x, channel), lanes)

    def _store(self, tensor: int, value: Expression, y: Any, x: Any, channel: Any, lanes: int) -> None:
        target, buffer = self.network.tensors[tensor], self._buffers[tensor]
        start = target.offset(y, x, channel)
        if target.shape is None:
            T.buffer_store(buffer, value, [vector(start, lanes)])
            return
        # Features leave without padding of the channels: the last vector may be a part of one.
        kept = T.alloc_buffer((lanes,), "float32", scope="local")
        T.buffer_store(kept, value, [vector(0, lanes)])
        with T.serial(0, tirx.min(lanes, target.channels - channel)) as lane:
            T.buffer_store(buffer, kept[lane], [0, start + lane])

    def _argument(self, name: str, tensor: Tensor) -> Expression:
        return T.arg(name, T.buffer(tensor.shape or (tensor.size,), "float32"))

    def _whole(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pad a per-channel constant with zeros to whole vectors."""
        return np.pad(values, (0, -values.size % self.lanes))

    def _clear_halo(self, tensor: int) -> None:
        target = self.network.tensors[tensor]
        halo, row, stride = target.halo, target.row, target.stride
        self._clear(tensor, 0, halo.top * row)
        self._clear(tensor, (halo.top + target.height) * row, halo.bottom * row)
        if halo.left or halo.right:
            with T.serial(0, target.height) as y:
                self._clear(tensor, target.offset(y, -halo.left, 0), halo.left * stride)
                self._clear(tensor, target.offset(y, target.width, 0), halo.right * stride)

    def _clear(self, tensor: int, start: Expression, count: int) -> None:
        buffer, whole = self._buffers[tensor], count // self.lanes
        if whole:
            with T.serial(0, whole) as index:
                T.buffer_store(buffer, splat(ZERO, self.lanes), [vector(start + index * self.lanes, self.lanes)])
        if count % self.lanes:
            with T.serial(0, count % self.lanes) as index:
                T.buffer_store(buffer, splat(ZERO, 1), [start + whole * self.lanes + index])
