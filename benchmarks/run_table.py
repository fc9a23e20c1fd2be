"""A finished run of nonn-trainer beside the paper: what its students cost and what they answer, on the test images.

    python benchmarks/run_table.py RUN [--paper wrn|vgg|none]

Reads RUN/evaluation.json, distill/, teacher/ and the teacher's own file (for its multiply-accumulates). Paper: Farcas
et al., CVPR-W 2020 (paper.py). Prints Markdown.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from paper import ROWS, PaperRow

from trainer.run_directory import RunDirectory


def main() -> int:
    """Print the tables of one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--paper", choices=[*ROWS, "none"], default="wrn")
    arguments = parser.parse_args()
    run = RunDirectory.open(arguments.run, {})
    found = json.loads((run.path / "evaluation.json").read_text())
    print_cost(run, found, ROWS.get(arguments.paper))
    print()
    print_subsets(found)
    print()
    print_training(run, found)
    return 0


def print_cost(run: RunDirectory, found: dict[str, Any], paper: PaperRow | None) -> None:
    """Teacher and student, beside the paper's row if it has one."""
    students, precision = found["students"], found["precision"]
    largest = max(students, key=lambda student: student["parameters"])
    parameters, macs = found["teacher_parameters"], teacher_macs(run)
    file = teacher_path(run)
    artifact = max(found["precisions"][precision]["artifact_bytes"])
    before, after = 100 * found["teacher_accuracy"], 100 * found["accuracy"]
    rows = [
        ("accuracy, %", f"{before:.2f}", f"{after:.2f} (all {len(students)})", f"{after - before:+.2f}"),
        ("parameters", f"{parameters:,}", f"{largest['parameters']:,}", f"{parameters / largest['parameters']:.2f}x"),
        ("multiply-accumulates", f"{macs / 1e6:,.1f} M", f"{largest['macs'] / 1e6:,.1f} M",
         f"{macs / largest['macs']:.1f}x"),
        ("artifact, bytes", f"{file.stat().st_size:,} (.keras)", f"{artifact:,} ({precision})",
         f"{file.stat().st_size / artifact:.0f}x"),
    ]  # fmt: skip
    columns = published(paper) if paper is not None else [""] * (len(rows) + 1)
    print(f"| | teacher | one of {len(students)} students | ratio |{columns[0]}")
    print("|---|---|---|---|" + ("---|" if paper is not None else ""))
    for row, text in zip(rows, columns[1:], strict=True):
        print(f"| {' | '.join(row)} |{text}")


def published(paper: PaperRow) -> list[str]:
    """The paper's column, from its title to the artifact."""
    (before, after), (teacher, student) = paper.accuracy, paper.parameters
    return [
        f" paper: {' -> '.join(paper.networks)} |",
        f" {before:.2f} -> {after:.2f}, {after - before:+.2f} |",
        f" {teacher / 1e6:.2f} M -> {student / 1e6:.2f} M, {paper.parameters_ratio}x |",
        "  |",
        "  |",
    ]


def print_subsets(found: dict[str, Any]) -> None:
    """Accuracy with every subset of students missing, by precision."""
    full = (1 << len(found["students"])) - 1
    masks = sorted((int(mask) for mask in found["precisions"][found["precision"]]["accuracy_by_mask"]), reverse=True)
    masks = [mask for mask in masks if mask]
    titles = ["all students" if mask == full else f"without {absent(mask, len(found['students']))}" for mask in masks]
    print(f"| precision | {' | '.join(titles)} | bytes of each artifact |")
    print("|" + "---|" * (len(masks) + 2))
    for name, entry in found["precisions"].items():
        cells = [f"{100 * entry['accuracy_by_mask'][str(mask)]:.2f} %" for mask in masks]
        print(f"| {name} | {' | '.join(cells)} | {' / '.join(f'{size:,}' for size in entry['artifact_bytes'])} |")


def print_training(run: RunDirectory, found: dict[str, Any]) -> None:
    """Passes, time, seeds."""
    settings = run.configuration
    record = json.loads((run.path / "run.json").read_text())
    seconds = json.loads((run.path / "distill" / "stage.json").read_text())["seconds"]
    print(
        f"{settings.passes} passes ({settings.small_passes} of them at 3/4 size), batch {settings.batch}, "
        f"{settings.views} views, failout {settings.failout:g}, seed {settings.seed}, {seconds / 3600:.2f} h of wall "
        f"clock on {record['machine']}, started at commit {(record['commit'] or '?')[:10]}; n = 1 run, "
        f"{found['test_images']:,} test images, seen once."
    )


def absent(mask: int, students: int) -> str:
    """Students that a mask leaves out."""
    return ", ".join(str(index) for index in range(students) if not mask >> index & 1)


def teacher_path(run: RunDirectory) -> Path:
    """The teacher's .keras file."""
    from trainer.run_context import RunContext
    from trainer.stages.teacher import teacher_file

    return teacher_file(RunContext(run))


def teacher_macs(run: RunDirectory) -> int:
    """Multiply-accumulates of the teacher for one image of the deployment's size."""
    from trainer.run_context import quiet_tensorflow

    quiet_tensorflow()
    import keras

    from trainer.network_cost import network_cost

    shape = json.loads((run.path / "export" / "manifest.json").read_text())["input"]
    pixels = keras.Input((shape["height"], shape["width"], shape["channels"]))
    network = keras.models.load_model(teacher_path(run), compile=False)
    return network_cost(keras.models.clone_model(network, input_tensors=pixels)).macs


if __name__ == "__main__":
    sys.exit(main())
