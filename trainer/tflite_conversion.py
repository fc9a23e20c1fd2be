"""Keras to TFLite."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edge_agent.console.atomic_file import write_atomically
from trainer.run_context import silent_stderr

CALIBRATION_IMAGES = 256  # ranges settle after about a hundred images


def convert_float_network(network: Any, image_shape: Sequence[int], precision: str, path: Path) -> None:
    """Write `network` as a batch-1 TFLite file of float32, float16 or dynamic range precision."""
    write_atomically(path, to_tflite(network, image_shape, precision, None))


def to_tflite(network: Any, image_shape: Sequence[int], precision: str, calibration: NDArray[np.uint8] | None) -> bytes:
    """TFLite bytes for batch 1. int8: uint8 pixels in, int8 features out, ranges from `calibration` images."""
    import tensorflow as tf

    pixels = keras.Input(tuple(image_shape), batch_size=1, dtype="float32", name="pixels")
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(pixels, network(pixels)))
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        if calibration is None:
            raise ValueError("int8 needs calibration images")
        chosen = calibration[:CALIBRATION_IMAGES]
        converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in chosen)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.int8
    with _quiet():
        content: bytes = converter.convert()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converter's hundreds of lines about captured variables off the terminal."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), silent_stderr(), warnings.catch_warnings():
            # It asks for input statistics although the representative images have just given them.
            warnings.filterwarnings("ignore", "Statistics for quantized inputs", UserWarning)
            yield
    finally:
        logger.setLevel(level)
