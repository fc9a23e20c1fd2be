"""Networks as TFLite files with what they cost: trained teachers, and others untrained, for what weights do not change.

    python benchmarks/network_files.py --out FOLDER wrn-40-4=teacher.keras wrn-16-1:133 vgg19 vgg11:256

NAME is a teacher as the trainer knows it, ending in ten classes; NAME=FILE.keras that teacher as trained; NAME:WIDTH a
student with so many features. Teachers become float32, students all precisions. FOLDER/networks.json says of each its
parameters (without the statistics of batch normalisation), its multiply-accumulates and whether it was trained. Time,
memory and bytes of a network do not depend on the values of its weights, as long as these differ; what it answers does.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

IMAGE_SHAPE, CLASSES = (32, 32, 3), 10
MEAN, DEVIATION = (127.5,) * 3, (63.75,) * 3
PRECISIONS = ("float32", "float16", "dynamic", "int8")


def main() -> int:
    """Write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = [write(entry, arguments.out) for entry in arguments.networks]
    (arguments.out / "networks.json").write_text(json.dumps(found, indent=1) + "\n")
    for network in found:
        print(f"{network['name']}: {network['parameters']:,} parameters, {network['macs']:,} multiply-accumulates")
    return 0


def write(entry: str, folder: Path) -> dict[str, Any]:
    """Write one network's files; return its row of networks.json."""
    from trainer.network_cost import network_cost
    from trainer.run_context import quiet_tensorflow
    from trainer.tflite_conversion import to_tflite

    quiet_tensorflow()
    name, _, file = entry.partition("=")
    name, _, width = name.partition(":")
    network = _student(name, int(width)) if width else _teacher(name, file)
    if not file:
        _vary(network)
    images = np.random.default_rng(5).integers(0, 256, (64, *IMAGE_SHAPE)).astype(np.uint8)
    for precision in PRECISIONS if width else PRECISIONS[:1]:
        content = to_tflite(network, IMAGE_SHAPE, precision, images if precision == "int8" else None)
        (folder / f"{name}.{precision}.tflite").write_bytes(content)
    return {
        "name": name,
        "role": "student" if width else "teacher",
        "trained": bool(file),
        "parameters": sum(int(np.prod(weight.shape)) for weight in network.trainable_weights),
        "macs": network_cost(network).macs,
    }


def _student(name: str, width: int) -> Any:
    from trainer.student_network import JointPlan, build_joint, extract_student

    return extract_student(build_joint(JointPlan((name,), (width,), IMAGE_SHAPE, CLASSES, MEAN, DEVIATION)), 0)


def _teacher(name: str, file: str) -> Any:
    import keras

    from trainer.networks import catalogue
    from trainer.teacher_model import in_float32

    if not file:
        return catalogue.classifier(name, IMAGE_SHAPE, CLASSES, MEAN, DEVIATION)
    loaded = in_float32(keras.models.load_model(file, compile=False))
    network = keras.models.clone_model(loaded, input_tensors=keras.Input(IMAGE_SHAPE))  # with every shape known
    network.set_weights(loaded.get_weights())
    return network


def _vary(network: Any) -> None:
    """Give every vector values as after a training; a converter stores equal ones once, and drops those of zeros."""
    rng = np.random.default_rng(7)
    for weight in network.variables:
        if len(weight.shape) == 1:
            around = 1.0 if weight.name in ("gamma", "moving_variance") else 0.0
            weight.assign(around + rng.uniform(-0.3, 0.3, weight.shape))


if __name__ == "__main__":
    sys.exit(main())
