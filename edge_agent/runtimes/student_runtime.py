"""The seam between the agent and the engines that run its student."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.exit_codes import ExitCode, UserError

ENGINES = ("tflite", "tvm")


class EngineError(UserError):
    """An artifact, image or engine that can't be used; one line saying why and what would do."""


class MissingEngineError(EngineError):
    """The package or library of an engine is not installed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.UNAVAILABLE)


class StudentRuntime(Protocol):
    """One opened artifact: an image goes in, the student's features come out."""

    engine: str  # 'tflite' or 'tvm'
    engine_version: str
    input_shape: tuple[int, int, int]  # height, width, channels
    width: int  # number of features
    quantization: tuple[float, int] | None  # (scale, zero_point) of int8 features, None for float32

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.int8] | NDArray[np.float32]:
        """Compute features of `image` (height, width, channels) uint8: (width,) int8 or float32."""
        ...

    def close(self) -> None:
        """Give the engine's memory back; the runtime is of no use afterwards."""
        ...


def check_image(image: NDArray[np.uint8], input_shape: tuple[int, int, int]) -> None:
    """Refuse an image that is not uint8 of `input_shape`: engines read raw memory."""
    if image.shape != input_shape or image.dtype != np.uint8:
        raise EngineError(
            f"image is {_shape_text(image.shape)} {image.dtype}, the student expects {_shape_text(input_shape)} uint8"
        )


def check_signature(path: Path, input_shape: Sequence[int], output_shape: Sequence[int]) -> None:
    """Refuse an artifact that does not take (1, height, width, channels) and give (1, width)."""
    image_like = len(input_shape) == 4 and input_shape[0] == 1 and min(input_shape) > 0
    features_like = len(output_shape) == 2 and output_shape[0] == 1 and min(output_shape) > 0
    if not (image_like and features_like):
        raise EngineError(
            f"{path}: not a student: takes {_shape_text(input_shape)} and gives {_shape_text(output_shape)}, "
            "expected 1xHEIGHTxWIDTHxCHANNELS and 1xWIDTH"
        )


def check_readable(path: Path) -> None:
    """Refuse an artifact that is absent, empty or not a file before an engine's own, vaguer complaint."""
    try:
        size_bytes = path.stat().st_size if path.is_file() else -1
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}", ExitCode.IO_ERROR) from error
    if size_bytes <= 0:
        raise EngineError(f"{path}: {'empty file' if size_bytes == 0 else 'no such file'}, expected a student")


def _shape_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
