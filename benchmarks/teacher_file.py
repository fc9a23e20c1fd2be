"""A teacher's .keras file as TFLite float32, converted once and kept; TensorFlow stays in a process of its own."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

CONVERT_S = 1800  # WRN-40-4 takes about a minute on an idle core


def teacher_tflite(file: Path, image_shape: tuple[int, int, int], cache: Path) -> Path:
    """`file` itself if it is TFLite, else its conversion for such images in `cache`, named by what it was made from."""
    if file.suffix == ".tflite":
        return file
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    size = "x".join(map(str, image_shape))
    converted = cache / f"teacher-{digest}-{size}.float32.tflite"
    if not converted.is_file():
        print(f"{file.name}: converting to {converted}", file=sys.stderr)
        started = time.perf_counter()
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, __file__, str(file), size, str(converted)], check=True, timeout=CONVERT_S)
        print(f"{file.name}: converted in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return converted


def convert(file: Path, shape: tuple[int, ...], target: Path) -> None:
    """Write the TFLite file for images of `shape` (height, width, channels); refused if it differs from Keras."""
    import keras
    import numpy as np

    from edge_agent.runtimes import open_runtime
    from trainer.teacher_model import in_float32
    from trainer.tflite_conversion import convert_float_network

    network = in_float32(keras.models.load_model(file, compile=False))
    partial = target.with_suffix(".partial")
    convert_float_network(network, shape, "float32", partial)
    images = np.random.default_rng(1).integers(0, 256, (4, *shape)).astype(np.uint8)
    runtime = open_runtime(partial, "tflite")
    found = np.stack([runtime.run(image) for image in images])
    expected = np.asarray(network(images.astype(np.float32), training=False))
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if error > 1e-3:
        partial.unlink()
        raise SystemExit(f"{file}: TFLite is off from Keras by {error:.1e}, allowed is 1e-3")
    partial.replace(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), tuple(map(int, sys.argv[2].split("x"))), Path(sys.argv[3]))
