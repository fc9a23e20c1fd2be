"""Kernels that are bound by memory: copying the image in, pooling."""

from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812

from trainer.tvm_export.cpus import CPU
from trainer.tvm_export.kernel_frame import Expression, KernelFrame, splat, vector
from trainer.tvm_export.layers import Group, Network


def build_copy(network: Network, group: Group, cpu: CPU, name: str) -> tuple[Any, KernelFrame]:
    """Return the kernel that brings the image into its padded place, normalised on the way."""
    frame = KernelFrame(network, group, cpu.lanes, None)
    return frame.build(name, _write_copy), frame


def _write_copy(frame: KernelFrame) -> None:
    height, width, channels = frame.group.shape
    with T.grid(height, width, channels) as (y, x, channel):
        frame.epilogue(T.Bind(frame.image_pixel(y, x, channel)), y, x, channel, 1)


def build_pool(network: Network, group: Group, cpu: CPU, name: str) -> tuple[Any, KernelFrame]:
    """Return the kernel of a maximum or average over windows."""
    frame = KernelFrame(network, group, cpu.lanes, None)
    return frame.build(name, lambda f: _write_pool(f, cpu.lanes)), frame


def _write_pool(frame: KernelFrame, lanes: int) -> None:
    group = frame.group
    height, width, channels = group.shape
    rows, columns = group.window.kernel
    kept = T.alloc_buffer((lanes,), "float32", scope="local")
    largest = group.anchor == "max_pool"
    start = float(np.finfo(np.float32).min) if largest else 0.0
    with T.grid(height, width, -(-channels // lanes)) as (y, x, vector_index):
        T.buffer_store(kept, splat(start, lanes), [vector(0, lanes)])
        with T.grid(rows, columns) as (r, s):
            value = _window_pixel(frame, y, x, r, s, vector_index * lanes, lanes)
            so_far = kept[vector(0, lanes)]
            T.buffer_store(kept, tirx.max(so_far, value) if largest else so_far + value, [vector(0, lanes)])
        result = kept[vector(0, lanes)]
        if not largest:
            result = result * splat(1.0 / (rows * columns), lanes)
        frame.epilogue(T.Bind(result), y, x, vector_index * lanes, lanes)


def _window_pixel(frame: KernelFrame, y: Any, x: Any, r: Any, s: Any, channel: Any, lanes: int) -> Expression:
    strides = frame.group.window.strides
    start = frame.source.offset(y * strides[0] + r, x * strides[1] + s, channel)
    return frame.load(frame.group.source, start, lanes)
