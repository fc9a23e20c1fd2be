"""Bytes per frame and student against accuracy, for every feature encoding, on a real deployment.

python benchmarks/feature_bytes.py --deployment RUN/export --dataset digits|cifar10|FOLDER [--images 5000]

Ranges come from training images, accuracy from the validation split, features from the float32 artifacts.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.head import MergeHead
from trainer.datasets import load_dataset
from trainer.feature_budget import budget_table, feature_budget
from trainer.litert_batches import features_of


def main() -> int:
    """Print sizes of the encoders, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployment", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--images", type=int, default=5000, help="most images of each split")
    arguments = parser.parse_args()
    deployment = open_deployment(arguments.deployment)
    manifest = deployment.manifest
    size = (manifest.input.height, manifest.input.width)
    dataset = load_dataset(arguments.dataset, size)
    head = MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, len(manifest.classes))
    full = head.heads[head.full_mask]
    contents = []
    for student in manifest.students:
        artifact = next(a for a in student.artifacts if (a.engine, a.precision) == ("tflite", "float32"))
        contents.append(deployment.read(artifact))
        print(f"student {student.index}: encoder {artifact.size_bytes} bytes (float32), {student.width} features")
    splits = [split.images[: arguments.images] for split in (dataset.train, dataset.validation)]
    calibration, features = ([features_of(content, images).real() for content in contents] for images in splits)
    rows = feature_budget(
        calibration,
        features,
        dataset.validation.labels[: arguments.images],
        lambda parts: np.argmax(np.concatenate(parts, axis=1) @ full.weights + full.bias, axis=1),
    )
    print(budget_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
