"""TFLite files over arrays of images; imports no TensorFlow, so that worker processes start in a moment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.quantization import dequantize
from trainer.run_context import silent_stderr


def open_interpreter(artifact: Path | bytes, threads: int = 1) -> Any:
    """Return a ready LiteRT interpreter; never tf.lite's, which needs 500 MB and is not what devices run."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError(
            "ai-edge-litert is not installed; expected pip install '.[trainer]' in a clone", ExitCode.UNAVAILABLE
        ) from None
    if isinstance(artifact, bytes):
        interpreter = Interpreter(model_content=artifact, num_threads=threads)
    else:
        interpreter = Interpreter(model_path=str(artifact), num_threads=threads)
    with silent_stderr():  # "INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
        interpreter.allocate_tensors()
    return interpreter


def pooled_and_logits(
    artifact: Path, filters: int, images: NDArray[np.uint8]
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Both outputs of a converted teacher for images (n, height, width, channels), uint8.

    Answer: activities (n, filters) and logits (n, classes), float16. Where both have the same width, the
    converter's order (activities first) decides.
    """
    interpreter = open_interpreter(artifact)
    entry = interpreter.get_input_details()[0]["index"]
    details = sorted(interpreter.get_output_details(), key=lambda detail: detail["name"])
    first, second = details[0], details[1]
    if first["shape"][-1] != filters:
        first, second = second, first
    rows = []
    for image in images:
        interpreter.set_tensor(entry, image[None].astype(np.float32))
        interpreter.invoke()
        rows.append((interpreter.get_tensor(first["index"])[0], interpreter.get_tensor(second["index"])[0]))
    return np.array([row[0] for row in rows], np.float16), np.array([row[1] for row in rows], np.float16)


@dataclass(frozen=True)
class StudentFeatures:
    """values: (n, width), int8 with `quantization` (scale, zero_point), or float32 with None."""

    values: NDArray[np.int8] | NDArray[np.float32]
    quantization: tuple[float, int] | None

    def real(self) -> NDArray[np.float32]:
        """Features as the device itself sees them, (n, width), float32."""
        if self.quantization is None:
            return self.values.astype(np.float32, copy=False)
        return dequantize(self.values.astype(np.int8, copy=False), *self.quantization)


def features_of(artifact: Path | bytes, images: NDArray[np.uint8]) -> StudentFeatures:
    """Raw outputs of a student for images (n, height, width, channels), uint8."""
    interpreter = open_interpreter(artifact)
    entry = interpreter.get_input_details()[0]
    answer = interpreter.get_output_details()[0]
    rows = []
    for image in images:
        interpreter.set_tensor(entry["index"], image[None].astype(entry["dtype"]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(answer["index"])[0])
    scale, zero_point = answer["quantization"]
    quantization = (float(scale), int(zero_point)) if answer["dtype"] == np.int8 else None
    return StudentFeatures(np.stack(rows), quantization)
