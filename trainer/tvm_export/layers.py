"""What a student is to the kernel generator: a list of groups, each one kernel."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Halo:
    """Zeros kept around a tensor in memory, so that padded convolutions read without a test or a copy."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    def union(self, other: "Halo") -> "Halo":
        """Return the smallest halo that contains both."""
        return Halo(
            max(self.top, other.top),
            max(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )


@dataclass
class Tensor:
    """One image's feature map: (height, width, channels) float32, `stride` floats from pixel to pixel."""

    height: int
    width: int
    channels: int
    stride: int
    halo: Halo = field(default_factory=Halo)
    shape: tuple[int, ...] | None = None  # set where the outside sees it: the image and the features

    @property
    def row(self) -> int:
        """Floats from one row to the next."""
        return (self.width + self.halo.left + self.halo.right) * self.stride

    @property
    def size(self) -> int:
        """Floats in memory, halo included."""
        return (self.height + self.halo.top + self.halo.bottom) * self.row

    def offset(self, y: Any, x: Any, channel: Any) -> Any:
        """Position of an element; y and x may reach into the halo; numbers or TVM expressions."""
        return (y + self.halo.top) * self.row + (x + self.halo.left) * self.stride + channel


@dataclass(frozen=True)
class Source:
    """Where an element-wise step reads: the anchor, an earlier step, a tensor or a constant."""

    kind: str  # 'anchor', 'step', 'tensor', 'vector' (a constant per channel), 'scalar'
    index: int = 0  # which step, tensor or vector
    value: float = 0.0  # of a scalar


@dataclass(frozen=True)
class Step:
    """One element-wise operation on `sources`; `operation` is a name known to the kernels."""

    operation: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Window:
    """Geometry of a convolution or pooling; `padding` as a halo that the input must have."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: Halo = field(default_factory=Halo)


@dataclass
class Group:
    """One kernel: an anchor (what needs neighbours or sums) and the element-wise steps that follow it."""

    anchor: str  # 'copy', 'convolution', 'max_pool', 'average_pool'
    source: int  # tensor that the anchor reads
    shape: tuple[int, int, int]  # height, width, channels of the anchor's result
    window: Window
    # (rows, columns, channels in, channels out) float32; empty where the anchor has none.
    weights: NDArray[Any] = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.float32))
    steps: list[Step] = field(default_factory=list)
    vectors: list[NDArray[Any]] = field(default_factory=list)  # (channels,) float32
    operands: list[int] = field(default_factory=list)  # tensors that steps read
    outputs: list[tuple[Source, int]] = field(default_factory=list)  # what is stored to which tensor


@dataclass
class Network:
    """A whole student: tensors, groups in order of execution, which tensor is the image and which the features."""

    tensors: list[Tensor]
    groups: list[Group]
    image: int
    features: int
