"""The merge: FC heads for the students that are there. docs/protocol.md, section 8; the paper, section 3.3."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.npz import read_arrays, write_arrays

FloatArray = NDArray[np.float32]
_WEIGHTS = re.compile(r"w[1-9][0-9]{0,77}")  # masks of up to 256 students
# Features reach 2**20 (feature_message), a student 65,535 of them: within these bounds no sum overflows float32.
MAX_WEIGHT = 2.0**40
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-3, 1e3


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
        logits, temperature = self.merge_all([features])
        return logits[0], temperature

    def merge_all(self, frames: Sequence[Mapping[int, FloatArray]]) -> tuple[FloatArray, float]:
        """Logits (frames, classes) and temperature for frames with the same students, to the bit as one by one."""
        mask = 0
        for student in frames[0]:
            mask |= 1 << student
        head = self.heads.get(mask)
        if head is None:
            head = self.heads[self.full_mask]
            parts = np.split(self.mean, np.cumsum(self.widths)[:-1])
            rows = [features.get(i, parts[i]) for features in frames for i in range(len(self.widths))]
        else:
            students = sorted(frames[0])
            rows = [features[student] for features in frames for student in students]
        # A stack of single rows: one product of them all would round differently from each alone.
        joined = np.concatenate(rows).reshape(len(frames), 1, -1)
        return (joined @ head.weights)[:, 0] + head.bias, head.temperature

    def to_bytes(self) -> bytes:
        """An .npz file; the same heads give the same bytes."""
        arrays: dict[str, FloatArray] = {"mean": self.mean}
        for mask, head in sorted(self.heads.items()):
            arrays[f"w{mask}"] = head.weights
            arrays[f"b{mask}"] = head.bias
            arrays[f"t{mask}"] = np.array(head.temperature, np.float32)
        return write_arrays(arrays)

    @classmethod
    def from_bytes(cls, content: bytes, widths: Sequence[int], classes: int) -> "MergeHead":
        """Read and check a head file; ManifestError says what does not fit."""
        loaded = read_arrays(content)
        mean = _array(loaded, "mean", (sum(widths),))
        masks = sorted(int(name[1:]) for name in loaded if _WEIGHTS.fullmatch(name))
        heads = {mask: _subset_head(loaded, mask, widths, classes) for mask in masks}
        head = cls(tuple(widths), classes, heads, mean)
        if head.full_mask not in heads:
            raise ManifestError(f"head: no weights for all {len(widths)} students (w{head.full_mask})")
        return head


def probabilities(logits: FloatArray, temperature: float) -> FloatArray:
    """softmax(logits / temperature). logits: (..., classes), float32 -> same, sums to 1 over the classes.

    >>> probabilities(np.array([0.0, 0.0], np.float32), 1.0)
    array([0.5, 0.5], dtype=float32)
    """
    scores: FloatArray = logits / np.float32(temperature)
    # The ufuncs themselves: array.max() goes through two functions more.
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
    np.exp(scores, scores)
    scores /= np.add.reduce(scores, axis=-1, keepdims=True)
    return scores


def _subset_head(arrays: Mapping[str, FloatArray], mask: int, widths: Sequence[int], classes: int) -> SubsetHead:
    if not 0 < mask < 1 << len(widths):
        raise ManifestError(f"head: w{mask} is not a subset of {len(widths)} students")
    width = sum(w for student, w in enumerate(widths) if mask >> student & 1)
    temperature = float(_array(arrays, f"t{mask}", ()))
    if not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
        raise ManifestError(f"head: t{mask} is {temperature:g}, expected {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}")
    return SubsetHead(_array(arrays, f"w{mask}", (width, classes)), _array(arrays, f"b{mask}", (classes,)), temperature)


def _array(arrays: Mapping[str, FloatArray], name: str, shape: tuple[int, ...]) -> FloatArray:
    if name not in arrays:
        raise ManifestError(f"head: array {name} is missing")
    array = arrays[name]
    if array.shape != shape:
        raise ManifestError(f"head: {name} has the shape {array.shape}, expected {shape}")
    if not (np.abs(array) <= MAX_WEIGHT).all():
        raise ManifestError(f"head: not all numbers of {name} are finite and below 2**40")
    return array
