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
    caches: tuple[tuple[int, float], ...]  # (bytes, cycles to fetch a vector from beyond them), near to far


# Sources: Intel and Arm software optimisation guides. The A53 has 64-bit NEON paths: a 128-bit multiply-add
# takes one cycle of both, a 128-bit load two cycles. The A72 starts one 128-bit multiply-add, the A76 two.
AVX512 = CPU(16, 32, 2, 2, 4, broadcast_from_lane=False, caches=((32_768, 2), (1_000_000, 14)))
AVX2 = CPU(8, 16, 2, 2, 4, broadcast_from_lane=False, caches=((32_768, 1), (256_000, 3)))
CORTEX_A53 = CPU(4, 32, 1, 0.5, 4, broadcast_from_lane=True, caches=((24_576, 2), (262_144, 8)))
CORTEX_A72 = CPU(4, 32, 1, 1, 7, broadcast_from_lane=True, caches=((24_576, 1.5), (524_288, 6)))
CORTEX_A76 = CPU(4, 32, 2, 2, 4, broadcast_from_lane=True, caches=((49_152, 1), (262_144, 3)))


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


def choose_tile(cpu: CPU, height: int, width: int, channels: int, depth: int) -> Tile:
    """Choose the tile with the fewest estimated cycles for an output of (height, width, channels).

    `channels` counts whole vectors, `depth` the products that each output sums.
    The last tile of a row or column overlaps its neighbour, and counts in full.

    >>> choose_tile(AVX512, 4, 4, 512, depth=9 * 512)
    Tile(rows=4, columns=4, channels=16)
    """
    candidates = [
        Tile(rows, columns, vectors * cpu.lanes)
        for vectors in range(1, channels // cpu.lanes + 1)
        if channels % (vectors * cpu.lanes) == 0
        for rows in range(1, min(height, 8) + 1)
        for columns in range(1, min(width, 32) + 1)
        if _registers(cpu, rows * columns, vectors) <= cpu.registers
    ]
    return min(
        candidates, key=lambda tile: (_cycles(cpu, tile, height, width, channels, depth), tile.rows, tile.columns)
    )


def _registers(cpu: CPU, pixels: int, vectors: int) -> int:
    # Accumulators, the weights of one step, and one pixel (scalar loads) or four channels of every pixel (lanes).
    return pixels * vectors + vectors + (pixels if cpu.broadcast_from_lane else 1)


def _cycles(cpu: CPU, tile: Tile, height: int, width: int, channels: int, depth: int) -> float:
    """Estimate cycles for the whole output."""
    vectors = tile.channels // cpu.lanes
    multiply_adds = tile.pixels * vectors / cpu.multiply_adds
    pixel_loads = tile.pixels / (cpu.lanes if cpu.broadcast_from_lane else 1)
    loads = (vectors + pixel_loads) / cpu.loads
    # Narrow cores in order hide half of their loads, wide ones all of them.
    step = multiply_adds + loads / 2 if cpu.loads < 1 else max(multiply_adds, loads, cpu.latency)
    # The first tile of pixels brings the weights in from wherever all of them fit, later ones find them nearer.
    first = max(step, vectors * _fetch_cycles(cpu, depth * channels * 4))
    later = max(step, vectors * _fetch_cycles(cpu, depth * tile.channels * 4))
    tiles = -(-height // tile.rows) * -(-width // tile.columns)
    # A tile costs about 20 cycles for its start and end beside its steps.
    return channels // tile.channels * (depth * (first + (tiles - 1) * later) + 20 * tiles)


def _fetch_cycles(cpu: CPU, weights_bytes: int) -> float:
    """Cycles to fetch a vector of weights that lie in the nearest cache that holds all of them."""
    return max((cycles for size, cycles in cpu.caches if weights_bytes > size), default=0)
