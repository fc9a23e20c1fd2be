"""Deployments of untrained students for 32 x 32 x 3 images: what benchmarks need is their cost, not their answers.

    python benchmarks/bench_deployment.py --out FOLDER --file STUDENT.float32.tflite [--students 2]

Writes a deployment of equal students, each that file (network_files.py makes such files). `--small` instead writes
student-32x32x3.int8.tflite anew.
"""

import argparse
import hashlib
import os
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np

from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.protocol.head import MergeHead, SubsetHead
from edge_agent.protocol.manifest import Artifact, Codec, FileEntry, Golden, InputShape, Manifest, Student

SHAPE = (32, 32, 3)
WIDTH = 64  # features of a student: 92 bytes on the wire
# Two convolutions, written by `python benchmarks/bench_deployment.py --small`: most tables need no TensorFlow then.
SMALL_STUDENT = Path(__file__).parent / "student-32x32x3.int8.tflite"
CLASSES = tuple(f"class {n}" for n in range(10))


def make_deployment(
    folder: Path, students: int, network: str | None = None, file: Path | None = None
) -> DeploymentDirectory:
    """Write a deployment of `students` equal students: `network` as the trainer names it, or two small convolutions.

    A TFLite `file` of float32 or int8 is taken as it is.
    """
    folder.mkdir(parents=True)
    content, golden_image, golden, scale, zero_point = _artifact(network) if file is None else _features(file)
    precision = "int8" if file is None or ".int8." in file.name else "float32"
    generator, width = np.random.default_rng(1), len(golden)
    weights = generator.normal(size=(students * width, len(CLASSES))).astype(np.float32)
    bias = np.zeros(len(CLASSES), np.float32)
    widths = (width,) * students
    full = {(1 << students) - 1: SubsetHead(weights, bias, 1.0)}
    files = {
        "golden.bin": golden_image.tobytes(),
        "head.npz": MergeHead(widths, len(CLASSES), full, np.zeros(students * width, np.float32)).to_bytes(),
    }
    entries = []
    for index in range(students):
        name = f"student-{index}.{precision}.tflite"
        (folder / name).write_bytes(content)
        entries.append(
            Student(
                index=index,
                network=network or (file.name.split(".")[0] if file else "two convolutions"),
                width=width,
                parameters=1,
                macs=1,
                filters=tuple(range(index * width, (index + 1) * width)),
                artifacts=(Artifact(engine="tflite", precision=precision, **_entry(name, content)),),
                codec=Codec(scale=scale, zero_point=zero_point),
                golden=Golden(features=golden, tolerance=8 * scale),
            )
        )
    manifest = Manifest(
        name="bench", version=1, created=datetime(2026, 1, 1, tzinfo=UTC), teacher="none", classes=CLASSES,
        input=InputShape(height=32, width=32, channels=3), filters=students * width, students=tuple(entries),
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
    images = _images()
    return _answered(_convert(network, images) if network else SMALL_STUDENT.read_bytes(), images[0])


def _features(file: Path) -> tuple[bytes, np.ndarray, tuple[float, ...], float, int]:
    return _answered(file.read_bytes(), _images()[0])


def _images() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (8, *SHAPE)).astype(np.uint8)


def _answered(content: bytes, image: np.ndarray) -> tuple[bytes, np.ndarray, tuple[float, ...], float, int]:
    """A student's file, an image, its features, and their scale and zero point, on the wire if not in the file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(entry["index"], image[None].astype(entry["dtype"]))
    interpreter.invoke()
    scale, zero_point = output["quantization"]
    values = interpreter.get_tensor(output["index"])[0]
    if output["dtype"] == np.float32:
        return content, image, tuple(values.tolist()), max(float(values.max()), 1e-3) / 255, -128
    golden = tuple(float(v) for v in (values.astype(np.float32) - zero_point) * np.float32(scale))
    return content, image, golden, float(scale), int(zero_point)


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


def main() -> int:
    """Write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    parser.add_argument("--file", type=Path, metavar="STUDENT.tflite")
    parser.add_argument("--students", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    if arguments.small:
        SMALL_STUDENT.write_bytes(_convert(None, _images()))
    elif arguments.out and arguments.file:
        print(make_deployment(arguments.out, arguments.students, file=arguments.file).path)
    else:
        parser.error("expected --small, or --out and --file")
    return 0


if __name__ == "__main__":
    sys.exit(main())
