"""A student as TFLite files: converted, measured against Keras, refused if wrong."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.litert_batches import features_of
from trainer.tflite_conversion import to_tflite

PARITY_IMAGES = 100
# Highest relative RMS error against Keras. Measured on WRN-16-1: 6e-7, 0.13 %, 2.2 %, 7.2 %; three times that and a
# floor for small networks. A file without weights, which TFLite has been seen to write, is off by 100 %.
MAX_ERROR = {"float32": 1e-4, "float16": 0.01, "dynamic": 0.10, "int8": 0.25}
# Smallest size in bytes per weight: less means that weights are missing.
MIN_BYTES_PER_WEIGHT = {"float32": 3.9, "float16": 1.9, "dynamic": 0.9, "int8": 0.9}


@dataclass(frozen=True)
class ExportedStudent:
    """One file: its error against Keras and the step of its int8 features, if it has such."""

    path: Path
    precision: str
    relative_error: float
    feature_step: float | None


def export_student(
    student: Any, precision: str, calibration: NDArray[np.uint8], validation: NDArray[np.uint8], path: Path
) -> ExportedStudent:
    """Write `path` and check it; UserError (exit code 1) if it does not answer like `student`.

    calibration, validation: images (n, height, width, channels), uint8, from those splits.
    """
    image_shape = validation.shape[1:]
    content = to_tflite(student, image_shape, precision, calibration if precision == "int8" else None)
    exported = _checked(student, precision, content, validation[:PARITY_IMAGES], path)
    write_atomically(path, content)
    return exported


def relative_error(answer: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """RMS of the difference over RMS of `expected`, both (n, width).

    >>> relative_error(np.array([[1.1]]), np.array([[1.0]])).__round__(3)
    0.1
    """
    scale = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    return float(np.sqrt(np.mean(np.square(answer - expected, dtype=np.float64)))) / max(scale, 1e-9)


def _checked(student: Any, precision: str, content: bytes, images: NDArray[np.uint8], path: Path) -> ExportedStudent:
    # Vectors (BN, biases) are folded away or quantised otherwise; the convolutions' weights must all be there.
    weights = sum(int(np.prod(w.shape)) for w in student.trainable_weights if len(w.shape) > 1)
    smallest = int(weights * MIN_BYTES_PER_WEIGHT[precision])
    if len(content) < smallest:
        raise UserError(
            f"{path.name}: the converter wrote {len(content)} bytes, expected at least {smallest}; not exported",
            ExitCode.FAILED,
        )
    raw = features_of(content, images)
    expected = np.asarray(student(images.astype(np.float32), training=False))
    error = relative_error(raw.real(), expected)
    if not error <= MAX_ERROR[precision]:
        raise UserError(
            f"{path.name}: features are off by {error:.2%} from Keras, allowed are "
            f"{MAX_ERROR[precision]:.2%}; not exported",
            ExitCode.FAILED,
        )
    return ExportedStudent(path, precision, error, raw.quantization[0] if raw.quantization else None)
