"""The seam between the camera role and what it reads images from."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.exit_codes import ExitCode, UserError

Image = NDArray[np.uint8]  # (height, width, channels)
Shape = tuple[int, int, int]  # height, width, channels


class SourceError(UserError):
    """A camera, file or URL that gives no images: now, or at all."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.UNAVAILABLE)


class FrameSource(Protocol):
    """Images, one after the other."""

    live: bool  # newer images replace older ones; False: every image is to be answered

    def read(self) -> Image | None:
        """The next image, waiting for it; None after the last. SourceError if there is none just now."""
        ...

    def picture(self, width: int) -> bytes | None:
        """A JPEG of the last image for people to see, about `width` wide; None if the source has none to give."""
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


def fit(image: Image, shape: Shape) -> Image:
    """Crop to the aspect of `shape`, average down (or repeat up) to its size, convert channels. -> `shape`, uint8.

    Areas are averaged: picking single pixels would alias, and Pillow is not needed on the device.

    >>> fit(np.array([[[0], [100]], [[100], [200]]], np.uint8), (1, 1, 1))
    array([[[100]]], dtype=uint8)
    """
    height, width, channels = shape
    image = _crop(image, height, width)
    if image.shape[0] < height or image.shape[1] < width:
        return _channels(image[np.ix_(_nearest(image.shape[0], height), _nearest(image.shape[1], width))], channels)
    rows, columns = _edges(image.shape[0], height), _edges(image.shape[1], width)
    sums = np.add.reduceat(np.add.reduceat(image, rows[:-1], axis=0, dtype=np.uint32), columns[:-1], axis=1)
    areas = np.diff(rows)[:, None, None] * np.diff(columns)[None, :, None]
    return _channels((sums + areas // 2) // areas, channels)


def _crop(image: Image, height: int, width: int) -> Image:
    scale = min(image.shape[0] / height, image.shape[1] / width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    return image[top : top + rows, left : left + columns]


def _edges(size: int, parts: int) -> NDArray[np.intp]:
    return np.linspace(0, size, parts + 1).astype(np.intp)


def _nearest(size: int, parts: int) -> NDArray[np.intp]:
    return ((np.arange(parts) + 0.5) * size / parts).astype(np.intp)


def _channels(image: NDArray[np.integer], channels: int) -> Image:
    if image.shape[2] == channels:
        return image.astype(np.uint8)
    if channels == 3:
        return np.repeat(image, 3, axis=2).astype(np.uint8)
    # ITU-R 601 luma, the weights that Pillow and OpenCV use for grey, in 1/256.
    weights = np.array([77, 150, 29], np.uint32)
    return ((image[:, :, :3].astype(np.uint32) @ weights + 128) >> 8)[:, :, None].astype(np.uint8)
