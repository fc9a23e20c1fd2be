"""The merge: FC heads for the students that are there. docs/protocol.md, section 8; the paper, section 3.3."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.errors import ManifestError

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SubsetHead:
    """weights: (width of the subset, classes); bias: (classes,); temperature: > 0, calibrated on validation."""

    weights: FloatArray
    bias: FloatArray
    temperature: float


@dataclass(frozen=True)
class MergeHead:
    """Heads by bit mask of the present students (bit i = student i).

    A subset without a head of its own is answered by the full one, `mean` standing in for absent features.
    """

    widths: tuple[int, ...]
    classes: int
    heads: Mapping[int, SubsetHead]
    mean: FloatArray = field(repr=False)

    @property
    def full_mask(self) -> int:
        """The mask of all students."""
        return (1 << len(self.widths)) - 1

    def merge(self, features: Mapping[int, FloatArray]) -> tuple[FloatArray, float]:
        """Logits (classes,) and temperature for the students in `features`: {student: (width,), float32}.

        logits = concat(features in student order) @ weights + bias.
        """
        mask = sum(1 << student for student in features)
        head = self.heads.get(mask)
        if head is None:
            head = self.heads[self.full_mask]
            parts = np.split(self.mean, np.cumsum(self.widths)[:-1])
            joined = np.concatenate([features.get(i, parts[i]) for i in range(len(self.widths))])
        else:
            joined = np.concatenate([features[student] for student in sorted(features)])
        return joined @ head.weights + head.bias, head.temperature

    def to_bytes(self) -> bytes:
        """An .npz file; the same heads give the same bytes."""
        arrays: dict[str, NDArray[np.generic]] = {"mean": self.mean.astype(np.float32)}
        for mask, head in sorted(self.heads.items()):
            arrays[f"w{mask}"] = head.weights.astype(np.float32)
            arrays[f"b{mask}"] = head.bias.astype(np.float32)
            arrays[f"t{mask}"] = np.array(head.temperature, np.float32)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, widths: Sequence[int], classes: int) -> "MergeHead":
        """Read and check a head file; ManifestError says what does not fit."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                loaded = {name: arrays[name] for name in arrays.files}
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ManifestError(f"head: not an .npz file of plain arrays ({error})") from None
        mean = _array(loaded, "mean", (sum(widths),))
        masks = sorted(int(name[1:]) for name in loaded if name[0] == "w" and name[1:].isdecimal())
        heads = {mask: _subset_head(loaded, mask, widths, classes) for mask in masks}
        head = cls(tuple(widths), classes, heads, mean)
        if head.full_mask not in heads:
            raise ManifestError(f"head: no weights for all {len(widths)} students (w{head.full_mask})")
        return head


def probabilities(logits: FloatArray, temperature: float) -> FloatArray:
    """softmax(logits / temperature). logits: (classes,), float32 -> same, sums to 1.

    >>> probabilities(np.array([0.0, 0.0], np.float32), 1.0)
    array([0.5, 0.5], dtype=float32)
    """
    scaled = logits / np.float32(temperature)
    exponentials = np.exp(scaled - scaled.max())
    result: FloatArray = exponentials / exponentials.sum()
    return result


def _subset_head(
    arrays: Mapping[str, NDArray[np.generic]], mask: int, widths: Sequence[int], classes: int
) -> SubsetHead:
    if not 0 < mask < 1 << len(widths):
        raise ManifestError(f"head: w{mask} is not a subset of {len(widths)} students")
    width = sum(w for student, w in enumerate(widths) if mask >> student & 1)
    temperature = float(_array(arrays, f"t{mask}", ()))
    if not temperature > 0:
        raise ManifestError(f"head: t{mask} is {temperature}, expected a positive temperature")
    return SubsetHead(_array(arrays, f"w{mask}", (width, classes)), _array(arrays, f"b{mask}", (classes,)), temperature)


def _array(arrays: Mapping[str, NDArray[np.generic]], name: str, shape: tuple[int, ...]) -> FloatArray:
    if name not in arrays:
        raise ManifestError(f"head: array {name} is missing")
    array = arrays[name]
    if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array.view(np.float32)).all():
        raise ManifestError(f"head: {name} is {array.dtype} {array.shape}, expected finite float32 {shape}")
    return array.view(np.float32)
