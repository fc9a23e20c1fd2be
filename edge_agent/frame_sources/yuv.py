"""YUV pictures as cameras give them, to RGB. Pure."""

import numpy as np
from numpy.typing import NDArray

from edge_agent.frame_sources.frame_source import Image

# JFIF, full range: R = Y + 1.402 V, G = Y - 0.344136 U - 0.714136 V, B = Y + 1.772 U, with U and V around 0.
_TO_RGB = np.array([[1.0, 1.0, 1.0], [0.0, -0.344136, 1.772], [1.402, -0.714136, 0.0]], np.float32)


def i420_to_rgb(planes: NDArray[np.uint8], width: int, height: int) -> Image:
    """Y plane, then U and V at half size. planes: (height * 3 / 2, stride) -> (height, width, 3), uint8.

    U and V rows are half a stride long, so two of them share one row of `planes`, as picamera2 gives them.
    """
    stride = planes.shape[1]
    chroma = planes[height:].reshape(2, height // 2, stride // 2)[:, :, : width // 2]
    wide = chroma.repeat(2, axis=1).repeat(2, axis=2)
    return _rgb(planes[:height, :width], wide[0], wide[1])


def yuyv_to_rgb(rows: NDArray[np.uint8], width: int) -> Image:
    """Y0 U Y1 V for each two pixels. rows: (height, stride >= 2 * width) -> (height, width, 3), uint8."""
    pairs = rows[:, : 2 * width].reshape(rows.shape[0], width // 2, 4)
    luma = pairs[:, :, 0::2].reshape(rows.shape[0], width)
    return _rgb(luma, pairs[:, :, 1].repeat(2, axis=1), pairs[:, :, 3].repeat(2, axis=1))


def _rgb(luma: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8]) -> Image:
    yuv = np.stack([luma, u, v], axis=2).astype(np.float32)
    yuv[:, :, 1:] -= 128
    rgb: Image = np.clip(np.rint(yuv @ _TO_RGB), 0, 255).astype(np.uint8)
    return rgb
