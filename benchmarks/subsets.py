"""Accuracy with every set of students missing: the shipped files themselves on labelled test images.

    python benchmarks/subsets.py DEPLOYMENT ... --dataset cifar10.zip [--images 10000] [--answers FILE.npz]

Runs the first precision of each student on every image, sends features through the deployment's codec and merges them
with its own heads: what a fleet answers (over_mqtt.py compares). --answers writes the last deployment's answers, for
`nonn-coordinator evaluate --expect`. Prints Markdown.
"""

import argparse
import itertools
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.labelled_images import LabelledImages, decode_image
from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.protocol.head import MergeHead
from trainer.litert_batches import features_of
from trainer.merged_answers import MergedAnswers, merge_all, over_the_wire
from trainer.npz_file import write_arrays
from trainer.worker_pool import map_in_workers


@dataclass(frozen=True)
class Labelled:
    """images: (n, height, width, channels), uint8; labels: (n,), in the order of names."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def main() -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deployments", nargs="+", type=Path, metavar="DEPLOYMENT")
    parser.add_argument("--dataset", type=Path, required=True, metavar="PATH")
    parser.add_argument("--images", type=int, default=10_000, help="most of them, evenly spread")
    parser.add_argument("--answers", type=Path, metavar="FILE.npz")
    arguments = parser.parse_args()
    deployments = [open_deployment(path) for path in arguments.deployments]
    test = read_test_images(arguments.dataset, deployments[0], arguments.images)
    print(f"{len(test.labels):,} test images\n")
    print("| deployment | students there | missing | accuracy | points lost | bytes of features for a frame |")
    print("|---|---|---|---|---|---|")
    worst = []
    for deployment in deployments:
        answers = offline_answers(deployment, test.images)
        accuracies = answers.accuracies(test.labels)
        print_rows(deployment, accuracies)
        worst.append(worst_line(deployment, accuracies))
    print("", *worst, sep="\n")
    if arguments.answers:
        arrays = {f"p{mask}": values for mask, values in answers.probabilities.items()}
        write_arrays(arguments.answers, **arrays, labels=test.labels)
    return 0


def read_test_images(dataset: Path, deployment: DeploymentDirectory, most: int) -> Labelled:
    """Test images as the deployment wants them, labelled by its classes."""
    manifest = deployment.manifest
    shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
    index = {name: number for number, name in enumerate(manifest.classes)}
    there = LabelledImages(dataset)
    chosen = there.images[:: max(1, len(there.images) // most)]
    images = [decode_image(there.read(image), shape, image.name) for image in chosen]
    return Labelled(np.stack(images), np.array([index[image.class_name] for image in chosen], np.int64))


def offline_answers(deployment: DeploymentDirectory, images: NDArray[np.uint8]) -> MergedAnswers:
    """What a fleet answers, for every set of students that has a head."""
    manifest = deployment.manifest
    head = MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, len(manifest.classes))
    artifacts = [next(a for a in student.artifacts if a.engine == "tflite") for student in manifest.students]
    jobs = [(deployment.read(artifact), images) for artifact in artifacts]
    raw = map_in_workers(features_of, jobs, os.cpu_count() or 1, len(images) >= 1000)
    features = [over_the_wire(part, student.codec) for part, student in zip(raw, manifest.students, strict=True)]
    return merge_all(head, features, sorted(head.heads))


def worst_line(deployment: DeploymentDirectory, accuracies: dict[int, float]) -> str:
    """What a fleet answers when the most useful student is away."""
    students = len(deployment.manifest.students)
    full = (1 << students) - 1
    found = [accuracies[full ^ 1 << student] for student in range(students) if full ^ 1 << student in accuracies]
    return f"{deployment.path.name}: worst with one student missing {100 * min(found, default=0.0):.2f} %\n"


def print_rows(deployment: DeploymentDirectory, accuracies: dict[int, float]) -> None:
    """One row for each set that answers, the whole one first."""
    from model_costs import costs

    sizes = [student["feature_bytes"] for student in costs(deployment.path)["students"]]
    students = range(len(sizes))
    full = max(accuracies)
    for count in reversed(range(1, len(sizes) + 1)):
        for present in itertools.combinations(students, count):
            mask = sum(1 << student for student in present)
            if mask not in accuracies:
                continue
            missing = ", ".join(str(student) for student in students if student not in present) or "none"
            print(f"| {deployment.path.name} | {', '.join(map(str, present))} | {missing} "
                  f"| {100 * accuracies[mask]:.2f} % | {100 * (accuracies[full] - accuracies[mask]):.2f} "
                  f"| {sum(sizes[student] for student in present)} |")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
