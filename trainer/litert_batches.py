"""TFLite files over arrays of images; imports no TensorFlow, so that worker processes start in a moment."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.exit_codes import ExitCode, UserError


def open_interpreter(artifact: Path | bytes, threads: int = 1) -> Any:
    """Return a ready LiteRT interpreter; never tf.lite's, which needs 500 MB and is not what devices run."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError(
            "ai-edge-litert is not installed; expected pip install 'nonn-edge[trainer]'", ExitCode.UNAVAILABLE
        ) from None
    if isinstance(artifact, bytes):
        interpreter = Interpreter(model_content=artifact, num_threads=threads)
    else:
        interpreter = Interpreter(model_path=str(artifact), num_threads=threads)
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


def features_of(artifact: Path | bytes, images: NDArray[np.uint8]) -> NDArray[np.int8] | NDArray[np.float32]:
    """Raw outputs of a student for images (n, height, width, channels), uint8 -> (n, width), int8 or float32."""
    interpreter = open_interpreter(artifact)
    entry = interpreter.get_input_details()[0]
    out = interpreter.get_output_details()[0]["index"]
    rows = []
    for image in images:
        interpreter.set_tensor(entry["index"], image[None].astype(entry["dtype"]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(out)[0])
    return np.stack(rows)
