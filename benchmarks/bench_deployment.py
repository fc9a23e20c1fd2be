"""Deployments of untrained students for 32 x 32 x 3 images: what benchmarks need is their cost, not their answers."""

import hashlib
import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np

from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.protocol.head import MergeHead, SubsetHead
from edge_agent.protocol.manifest import Artifact, Codec, FileEntry, Golden, InputShape, Manifest, Student

SHAPE = (32, 32, 3)
WIDTH = 64  # features of a student: 92 bytes on the wire
# Two convolutions, written by `python benchmarks/bench_deployment.py`: most tables need no TensorFlow then.
SMALL_STUDENT = Path(__file__).parent / "student-32x32x3.int8.tflite"
CLASSES = tuple(f"class {n}" for n in range(10))


def make_deployment(folder: Path, students: int, network: str | None = None) -> DeploymentDirectory:
    """Write a deployment of `students` equal students: `network` as the trainer names it, or two small convolutions."""
    folder.mkdir(parents=True)
    content, golden_image, golden, scale, zero_point = _artifact(network)
    generator = np.random.default_rng(1)
    weights = generator.normal(size=(students * WIDTH, len(CLASSES))).astype(np.float32)
    bias = np.zeros(len(CLASSES), np.float32)
    widths = (WIDTH,) * students
    full = {(1 << students) - 1: SubsetHead(weights, bias, 1.0)}
    files = {
        "student.int8.tflite": content,
        "golden.bin": golden_image.tobytes(),
        "head.npz": MergeHead(widths, len(CLASSES), full, np.zeros(students * WIDTH, np.float32)).to_bytes(),
    }
    entries = []
    for index in range(students):
        name = f"student-{index}.int8.tflite"
        (folder / name).write_bytes(content)
        entries.append(
            Student(
                index=index,
                network=network or "two convolutions",
                width=WIDTH,
                parameters=1,
                macs=1,
                filters=tuple(range(index * WIDTH, (index + 1) * WIDTH)),
                artifacts=(Artifact(engine="tflite", precision="int8", **_entry(name, content)),),
                codec=Codec(scale=scale, zero_point=zero_point),
                golden=Golden(features=golden, tolerance=8 * scale),
            )
        )
    manifest = Manifest(
        name="bench", version=1, created=datetime(2026, 1, 1, tzinfo=UTC), teacher="none", classes=CLASSES,
        input=InputShape(height=32, width=32, channels=3), filters=students * WIDTH, students=tuple(entries),
        head=FileEntry(**_entry("head.npz", files["head.npz"])),
        golden_input=FileEntry(**_entry("golden.bin", files["golden.bin"])),
    )  # fmt: skip
    for name in ("head.npz", "golden.bin"):
        (folder / name).write_bytes(files[name])
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return open_deployment(folder)


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"file": name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@cache
def _artifact(network: str | None) -> tuple[bytes, np.ndarray, tuple[float, ...], float, int]:
    """TFLite bytes, an input, its features, their scale and zero point."""
    from ai_edge_litert.interpreter import Interpreter

    images = np.random.default_rng(5).integers(0, 256, (8, *SHAPE)).astype(np.uint8)
    content = _convert(network, images) if network else SMALL_STUDENT.read_bytes()
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[:1])
    interpreter.invoke()
    output = interpreter.get_output_details()[0]
    scale, zero_point = output["quantization"]
    values = interpreter.get_tensor(output["index"])[0]
    golden = tuple(float(v) for v in (values.astype(np.float32) - zero_point) * np.float32(scale))
    return content, images[0], golden, float(scale), int(zero_point)


def _convert(name: str | None, images: np.ndarray) -> bytes:
    """An untrained student; needs TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from trainer.networks import catalogue
    from trainer.tflite_conversion import to_tflite

    pixels = keras.Input(SHAPE)
    if name:
        flow = catalogue.trunk(name, pixels, "s", SHAPE[:2], (127.5,) * SHAPE[2], (63.75,) * SHAPE[2])
    else:
        flow = keras.layers.Rescaling(1 / 255)(pixels)
        flow = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(flow)
    flow = keras.layers.Conv2D(WIDTH, 1, activation="relu")(flow)
    network = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(flow))
    return to_tflite(network, SHAPE, "int8", images)


if __name__ == "__main__":
    SMALL_STUDENT.write_bytes(_convert(None, np.random.default_rng(5).integers(0, 256, (8, *SHAPE)).astype(np.uint8)))
