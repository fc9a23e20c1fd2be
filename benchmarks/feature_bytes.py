"""Bytes per frame and student against accuracy, for every feature encoding, on real deployments.

    python benchmarks/feature_bytes.py --deployment DEPLOYMENT ... --dataset digits|cifar10|PATH [--split test]
        [--images 5000] [--json FILE]

Ranges come from training images, features from the float32 artifacts, or from the first where there is none. All go
through the deployment's own head of all students; `as shipped` is what the manifest says. Heads were fitted to features
as they arrive in the shipped encoding. These are sc2bench's three figures: size of the encoder, bytes sent, accuracy.
Prints Markdown.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))
from model_costs import costs

from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.protocol.head import MergeHead, SubsetHead
from edge_agent.protocol.manifest import Artifact, Student
from trainer.datasets import ImageDataset, load_dataset
from trainer.feature_budget import budget_table, feature_budget
from trainer.litert_batches import features_of
from trainer.merged_answers import over_the_wire
from trainer.worker_pool import map_in_workers


def main() -> int:
    """Print sizes of the encoders and the table of each deployment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployment", type=Path, nargs="+", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--images", type=int, default=5000, help="most images of each split")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args()
    documents = []
    dataset: ImageDataset | None = None
    for path in arguments.deployment:
        deployment = open_deployment(path)
        shape = deployment.manifest.input
        dataset = dataset or load_dataset(arguments.dataset, (shape.height, shape.width))
        documents.append(compare(deployment, dataset, arguments))
    if arguments.json:
        arguments.json.write_text(json.dumps(documents, indent=1) + "\n")
    return 0


def compare(deployment: DeploymentDirectory, dataset: ImageDataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """One deployment: print, and return the figures."""
    students, split = deployment.manifest.students, getattr(dataset, arguments.split)
    artifacts = [encoder(student) for student in students]
    images, labels = split.images[: arguments.images], split.labels[: arguments.images]
    seen = dataset.train.images[: arguments.images]
    what = f"{len(images):,} {arguments.split} images, ranges of {len(seen):,} training images"
    print(f"**{deployment.path.name}**: {what}\n")
    for student, artifact in zip(students, artifacts, strict=True):
        print(f"- student {student.index}: encoder {artifact.size_bytes} bytes ({artifact.precision}), {student.width} "
              f"features")  # fmt: skip
    contents = [deployment.read(artifact) for artifact in artifacts]
    raw = map_in_workers(
        features_of, [(content, part) for part in (seen, images) for content in contents], os.cpu_count() or 1,
        len(images) >= 1000,
    )  # fmt: skip
    calibration, features = raw[: len(students)], raw[len(students) :]
    full = full_head(deployment)

    def classify(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
        return np.argmax(np.concatenate(parts, axis=1) @ full.weights + full.bias, axis=1)

    rows = feature_budget([part.real() for part in calibration], [part.real() for part in features], labels, classify)
    shipped = [over_the_wire(part, student.codec) for part, student in zip(features, students, strict=True)]
    accuracy = float(np.mean(classify(shipped) == labels))
    sizes = [student["feature_bytes"] for student in costs(deployment.path)["students"]]
    print(f"\n{budget_table(rows)}")
    print(f"| **as shipped**: {students[0].codec.encoding} | | | {max(sizes)} | {100 * accuracy:.2f} % "
          f"| {100 * (rows[0].accuracy - accuracy):+.2f} | |\n")  # fmt: skip
    return {
        "deployment": deployment.id, "when": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0],
        "dataset": dataset.name, "training_images": len(seen), f"{arguments.split}_images": len(images),
        "encoders": [
            {"student": s.index, "size_bytes": a.size_bytes, "features": s.width}
            for s, a in zip(students, artifacts, strict=True)
        ],
        "shipped": {"accuracy": accuracy, "message_bytes": sizes},
        "encodings": [{"features_as": r.title, "mean_message_bytes": r.mean_message_bytes} | asdict(r) for r in rows],
    }  # fmt: skip


def encoder(student: Student) -> Artifact:
    """The student's float32 TFLite file, else its first."""
    files = [artifact for artifact in student.artifacts if artifact.engine == "tflite"]
    return next((artifact for artifact in files if artifact.precision == "float32"), files[0])


def full_head(deployment: DeploymentDirectory) -> SubsetHead:
    """The head for all students."""
    manifest = deployment.manifest
    head = MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, len(manifest.classes))
    return head.heads[head.full_mask]


if __name__ == "__main__":
    sys.exit(main())
