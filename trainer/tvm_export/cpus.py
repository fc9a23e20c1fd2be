"""CPUs that students are compiled for, and which register tile suits a convolution on each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CPU:
    """What the tile model needs to know of a core; counts are per cycle unless named otherwise."""

    lanes: int  # floats in a vector
    registers: int  # vector registers
    multiply_adds: float  # vector multiply-adds started
    loads: float  # vector loads started
    latency: int  # cycles from a multiply-add to its result
    broadcast_from_lane: bool  # multiply by one lane of a loaded vector (NEON) instead of loading each scalar


# Sources: Intel and Arm software optimisation guides. The A53 has 64-bit NEON paths: a 128-bit multiply-add
# takes one cycle of both, a 128-bit load two cycles. The A72 starts one 128-bit multiply-add, the A76 two.
AVX512 = CPU(16, 32, 2, 2, 4, broadcast_from_lane=False)
AVX2 = CPU(8, 16, 2, 2, 4, broadcast_from_lane=False)
CORTEX_A53 = CPU(4, 32, 1, 0.5, 4, broadcast_from_lane=True)
CORTEX_A72 = CPU(4, 32, 1, 1, 7, broadcast_from_lane=True)
CORTEX_A76 = CPU(4, 32, 2, 2, 4, broadcast_from_lane=True)


@dataclass(frozen=True)
class Tile:
    """Outputs kept in registers: `rows` x `columns` pixels of `channels` channels."""

    rows: int
    columns: int
    channels: int

    @property
    def pixels(self) -> int:
        """Pixels of the tile."""
        return self.rows * self.columns


def choose_tile(cpu: CPU, height: int, width: int, channels: int) -> Tile:
    """Choose the tile with the fewest estimated cycles for an output of (height, width, channels).

    `channels` counts whole vectors. The last tile of a row or column overlaps its neighbour, and counts in full.

    >>> choose_tile(AVX512, 8, 8, 64)
    Tile(rows=1, columns=8, channels=32)
    """
    candidates = [
        Tile(rows, columns, vectors * cpu.lanes)
        for vectors in range(1, channels // cpu.lanes + 1)
        if channels % (vectors * cpu.lanes) == 0
        for rows in range(1, min(height, 8) + 1)
        for columns in range(1, min(width, 32) + 1)
        if _registers(cpu, rows * columns, vectors) <= cpu.registers
    ]
    return min(candidates, key=lambda tile: (_cycles(cpu, tile, height, width, channels), tile.rows, tile.columns))


def _registers(cpu: CPU, pixels: int, vectors: int) -> int:
    # Accumulators, the weights of one step, and one pixel (scalar loads) or four channels of every pixel (lanes).
    return pixels * vectors + vectors + (pixels if cpu.broadcast_from_lane else 1)


def _cycles(cpu: CPU, tile: Tile, height: int, width: int, channels: int) -> float:
    """Estimate cycles per (kernel position, channel in) over the whole output."""
    vectors = tile.channels // cpu.lanes
    multiply_adds = tile.pixels * vectors
    pixel_loads = tile.pixels / (cpu.lanes if cpu.broadcast_from_lane else 1)
    step = max(multiply_adds / cpu.multiply_adds, (vectors + pixel_loads) / cpu.loads, cpu.latency)
    if cpu.loads < 1:  # in order and narrow: loads hide behind nothing
        step = multiply_adds / cpu.multiply_adds + (vectors + pixel_loads) / cpu.loads / 2
    tiles = -(-height // tile.rows) * -(-width // tile.columns) * (channels // tile.channels)
    # A tile also costs its start, its epilogue and its loop overhead: about 20 cycles spread over 100 steps.
    return tiles * (step + 0.2)
