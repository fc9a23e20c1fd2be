"""Direct convolution: a register tile of outputs, weights in the order in which they are read, no im2col."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812

from trainer.tvm_export.cpus import CPU, Tile, choose_tile
from trainer.tvm_export.kernel_frame import ZERO, Expression, KernelFrame, splat, vector
from trainer.tvm_export.layers import Group, Network


def build_direct_convolution(network: Network, group: Group, cpu: CPU, name: str) -> tuple[Any, KernelFrame]:
    """Return the kernel of a convolution group and its frame."""
    height, width, channels = group.shape
    whole = -(-channels // cpu.lanes) * cpu.lanes
    tile = choose_tile(cpu, height, width, whole, group.weights[..., 0].size)
    frame = KernelFrame(network, group, cpu.lanes, pack_weights(group.weights, whole, tile.channels))
    return frame.build(name, lambda f: _Convolution(f, cpu, tile).write(height, width, whole)), frame


def pack_weights(weights: NDArray[Any], channels: int, tile: int) -> NDArray[np.float32]:
    """Order weights as read: (rows, columns, in, out) -> (out tiles, rows, columns, in, tile), zeros to `channels`."""
    rows, columns, channels_in, channels_out = weights.shape
    padded = np.zeros((rows, columns, channels_in, channels), np.float32)
    padded[..., :channels_out] = weights
    split = padded.reshape(rows, columns, channels_in, channels // tile, tile)
    return np.ascontiguousarray(split.transpose(3, 0, 1, 2, 4))


class _Convolution:
    """Writes the loops; names: y, x pixel; f, c channel out, in; r, s row, column of the kernel."""

    def __init__(self, frame: KernelFrame, cpu: CPU, tile: Tile) -> None:
        self._frame, self._cpu, self._tile = frame, cpu, tile
        self._lanes = cpu.lanes
        self._vectors = tile.channels // cpu.lanes

    def write(self, height: int, width: int, channels: int) -> None:
        tile = self._tile
        accumulators = T.alloc_buffer((tile.pixels * tile.channels,), "float32", scope="local")
        # Channels outermost: one tile's weights stay in the cache while the whole (small) image passes by.
        extents = (channels // tile.channels, -(-height // tile.rows), -(-width // tile.columns))
        with T.grid(*extents) as (f_tile, y_tile, x_tile):
            # The last tile overlaps its neighbour instead of ending in a remainder loop.
            y = _clamped(y_tile, tile.rows, height)
            x = _clamped(x_tile, tile.columns, width)
            for index in range(tile.pixels * self._vectors):
                self._accumulate(accumulators, index, splat(ZERO, self._lanes))
            self._sum(accumulators, f_tile, y, x)
            for pixel in range(tile.pixels):
                row, column = divmod(pixel, tile.columns)
                for v in range(self._vectors):
                    value = T.Bind(accumulators[self._slot(pixel * self._vectors + v)])
                    channel = f_tile * tile.channels + v * self._lanes
                    self._frame.epilogue(value, y + row, x + column, channel, self._lanes)

    def _sum(self, accumulators: Expression, f_tile: Expression, y: Expression, x: Expression) -> None:
        group, tile = self._frame.group, self._tile
        rows, columns, channels_in, _ = group.weights.shape
        step = self._lanes if self._cpu.broadcast_from_lane and channels_in % self._lanes == 0 else 1
        with T.grid(rows, columns, channels_in // step) as (r, s, c_step):
            pixels = [self._pixel(y, x, r, s, c_step * step, pixel, step) for pixel in range(tile.pixels)]
            for c in range(step):
                weights_at = ((f_tile * rows + r) * columns + s) * channels_in + c_step * step + c
                weights = [
                    T.Bind(self._frame.weights[vector(weights_at * tile.channels + v * self._lanes, self._lanes)])
                    for v in range(self._vectors)
                ]
                for index in range(tile.pixels * self._vectors):
                    pixel, v = divmod(index, self._vectors)
                    product = self._lane(pixels[pixel], c, step) * weights[v]
                    self._accumulate(accumulators, index, accumulators[self._slot(index)] + product)

    def _pixel(self, y: Any, x: Any, r: Any, s: Any, c: Any, pixel: int, lanes: int) -> Expression:
        """Load what the tile's pixel needs: one channel, broadcast, or `lanes` channels."""
        window, source = self._frame.group.window, self._frame.source
        row, column = divmod(pixel, self._tile.columns)
        start = source.offset(
            (y + row) * window.strides[0] + r - window.padding.top,
            (x + column) * window.strides[1] + s - window.padding.left,
            c,
        )
        loaded = self._frame.load(self._frame.group.source, start, lanes)
        return T.Bind(loaded if lanes > 1 else tirx.Broadcast(loaded, self._lanes))

    def _lane(self, loaded: Expression, lane: int, step: int) -> Expression:
        if step == 1:
            return loaded
        return tirx.Broadcast(tirx.Shuffle([loaded], [lane]), self._lanes)

    def _slot(self, index: int) -> Expression:
        return vector(index * self._lanes, self._lanes)

    def _accumulate(self, accumulators: Expression, index: int, value: Expression) -> None:
        T.buffer_store(accumulators, value, [self._slot(index)])


def _clamped(tile: Expression, size: int, extent: int) -> Expression:
    return tile * size if extent % size == 0 else tirx.min(tile * size, extent - size)
