"""Bytes per frame and student against accuracy, for every feature encoding, on a real deployment.

python benchmarks/feature_bytes.py --deployment RUN/export --dataset digits|cifar10|FOLDER [--images 5000] [--json FILE]

Ranges come from training images, accuracy from the validation split, features from the float32 artifacts. All go
through the deployment's own head. These are sc2bench's three figures: size of the encoder, bytes sent, accuracy.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args()
    deployment = open_deployment(arguments.deployment)
    manifest = deployment.manifest
    size = (manifest.input.height, manifest.input.width)
    dataset = load_dataset(arguments.dataset, size)
    head = MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, len(manifest.classes))
    full = head.heads[head.full_mask]
    contents, encoders = [], []
    for student in manifest.students:
        artifact = next(a for a in student.artifacts if (a.engine, a.precision) == ("tflite", "float32"))
        contents.append(deployment.read(artifact))
        encoders.append({"student": student.index, "size_bytes": artifact.size_bytes, "features": student.width})
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
    if arguments.json:
        conditions = {"when": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0], "dataset": arguments.dataset}
        counts = {"training_images": len(splits[0]), "validation_images": len(splits[1])}
        encodings = [
            {"features_as": row.title, "mean_message_bytes": row.mean_message_bytes} | asdict(row) for row in rows
        ]
        document = {"deployment": deployment.id} | conditions | counts | {"encoders": encoders, "encodings": encodings}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
