"""A fixed, seeded set of augmented views: the teacher sees each once, the students see them pass after pass."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

BLOCK_VIEWS = 4  # drawn together: a run with more views has the views of one with fewer


@dataclass(frozen=True)
class AugmentedViews:
    """Where every view of every image is cut. offsets: (views, images, 2), 0..2 pad; flips: (views, images), bool."""

    pad: int
    offsets: NDArray[np.uint8]
    flips: NDArray[np.bool_]

    @classmethod
    def draw(cls, views: int, images: int, pad: int, flip: bool, seed: int) -> "AugmentedViews":
        """Choose crops uniformly; flips alternate from view to view, so that two views hold both sides of an image."""
        blocks = [_draw_block(images, pad, np.random.default_rng([seed, n])) for n in range(-(-views // BLOCK_VIEWS))]
        offsets, flips = (np.concatenate(parts)[:views] for parts in zip(*blocks, strict=True))
        return cls(pad, offsets, flips if flip else np.zeros_like(flips))

    def cut(self, images: NDArray[np.uint8], view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """View `view` of images[rows]. images: (n, height, width, channels), uint8 -> (rows, same), uint8."""
        cropped = crop(images[rows], self.offsets[view, rows], self.pad)
        flipped = self.flips[view, rows]
        cropped[flipped] = cropped[flipped, :, ::-1]
        return cropped


def crop(images: NDArray[np.uint8], offsets: NDArray[np.uint8], pad: int) -> NDArray[np.uint8]:
    """Pad by reflection, then cut the original size at (row, column) offsets in 0..2 pad.

    >>> crop(np.arange(3, dtype=np.uint8).reshape(1, 1, 3, 1), np.array([[0, 0]], np.uint8), pad=0).ravel().tolist()
    [0, 1, 2]
    """
    if pad == 0:
        return images.copy()
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    windows = sliding_window_view(padded, (height, width), axis=(1, 2))
    chosen = windows[np.arange(len(images)), offsets[:, 0], offsets[:, 1]]  # (n, channels, height, width)
    return np.ascontiguousarray(chosen.transpose(0, 2, 3, 1))


def _draw_block(images: int, pad: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    offsets = rng.integers(0, 2 * pad + 1, (BLOCK_VIEWS, images, 2), dtype=np.uint8)
    first = rng.integers(0, 2, images, dtype=np.uint8)
    return offsets, (first[None, :] + np.arange(BLOCK_VIEWS)[:, None]) % 2 == 1
