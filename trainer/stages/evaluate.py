"""Stage `evaluate`: the only one that looks at the test split."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.console.exit_codes import UserError
from edge_agent.protocol.head import MergeHead
from trainer.demo.heldout import write_heldout
from trainer.litert_batches import features_of
from trainer.merged_answers import artifact_of, merge_all, over_the_wire
from trainer.network_cost import network_cost
from trainer.npz_file import write_arrays
from trainer.progress import progress_bar, say
from trainer.run_context import RunContext
from trainer.run_directory import write_json
from trainer.stages.export_answers import POOL_FROM_IMAGES
from trainer.stages.export_files import PREFERENCE
from trainer.stages.teacher import teacher_file
from trainer.teacher_model import load_teacher
from trainer.teacher_outputs import read_outputs, teacher_runner
from trainer.worker_pool import map_in_workers


def run(context: RunContext) -> dict[str, Any]:
    """Measure teacher and merged students; writes evaluation.json and evaluation/answers.npz."""
    stage = context.run.stage("evaluation")
    context.run.stage("exporting").results()
    deployment = open_deployment(context.run.path / "export")
    stage.claim({"deployment": deployment.id, "test_images": len(context.dataset.test)})
    if stage.finished:
        return stage.results()
    started = time.perf_counter()
    teacher = _teacher_accuracy(context, stage.folder)
    students = _students(context, deployment, stage.folder)
    results = {"deployment": deployment.id, "test_images": len(context.dataset.test), **teacher, **students}
    _write_heldout(context, stage.folder)
    write_json(context.run.path / "evaluation.json", results)
    stage.finish(results, time.perf_counter() - started)
    return results


def _teacher_accuracy(context: RunContext, folder: Path) -> dict[str, Any]:
    settings, test = context.run.configuration, context.dataset.test
    teacher = load_teacher(teacher_file(context), settings.lconv, context.dataset.image_shape)
    sample = context.dataset.validation.images
    with (
        teacher_runner(teacher, settings.teacher_engine, sample, len(test), folder, context.workers) as (
            runner,
            chosen,
        ),
        progress_bar("teacher on test", len(test)) as advance,
    ):
        say(f"evaluate: teacher on {len(test)} test images with {chosen['engine']}")
        runner.fill_shards(folder, "test", len(test), lambda a, b: test.images[a:b], lambda n: advance(n, ""))
    logits = read_outputs(folder, "test", len(test)).logits
    return {
        "teacher": settings.teacher,
        "teacher_accuracy": float(np.mean(logits.argmax(axis=1) == test.labels)),
        "teacher_engine": chosen["engine"],
        "teacher_parameters": teacher.parameters,
        "teacher_macs": _macs(teacher.network),
    }


def _macs(network: Any) -> int | None:
    """None for a network of any input size, or of layers that `network_cost` does not know."""
    try:
        return network_cost(network).macs
    except (UserError, TypeError):
        return None


def _students(context: RunContext, deployment: DeploymentDirectory, folder: Path) -> dict[str, Any]:
    manifest, test = deployment.manifest, context.dataset.test
    head = MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, len(manifest.classes))
    made = {artifact.precision for artifact in manifest.students[0].artifacts if artifact.engine == "tflite"}
    precisions = [p for p in PREFERENCE if p in made]
    by_precision: dict[str, Any] = {}
    for precision in precisions:
        say(f"evaluate: students as {precision}")
        jobs = [(deployment.read(artifact_of(student, precision)), test.images) for student in manifest.students]
        raw = map_in_workers(features_of, jobs, context.workers, len(test) >= POOL_FROM_IMAGES)
        features = [over_the_wire(part, s.codec) for part, s in zip(raw, manifest.students, strict=True)]
        answers = merge_all(head, features, sorted(head.heads))
        arrays = {f"p{mask}": p for mask, p in answers.probabilities.items()}
        classes = {f"c{mask}": p.argmax(axis=1).astype(np.int16) for mask, p in answers.probabilities.items()}
        write_arrays(folder / f"answers.{precision}.npz", **arrays, **classes, labels=test.labels)
        if precision == precisions[0]:
            write_arrays(folder / "answers.npz", **arrays, **classes, labels=test.labels)
        accuracies = answers.accuracies(test.labels)
        by_precision[precision] = {
            "accuracy": accuracies[head.full_mask],
            "accuracy_by_mask": {str(mask): value for mask, value in sorted(accuracies.items())},
            "artifact_bytes": [artifact_of(student, precision).size_bytes for student in manifest.students],
        }
    return {
        "accuracy": by_precision[precisions[0]]["accuracy"],
        "precision": precisions[0],
        "precisions": by_precision,
        "students": [
            {"network": s.network, "width": s.width, "parameters": s.parameters, "macs": s.macs}
            for s in manifest.students
        ],
    }


def _write_heldout(context: RunContext, folder: Path) -> None:
    """Digits come as arrays: their test images are also written as files, to be sent over MQTT."""
    if context.run.configuration.dataset == "digits":
        archive = context.run.path / "heldout.zip"
        write_heldout(context.dataset, folder / "answers.npz", archive, folder / "answers.npz")


def print_table(results: dict[str, Any]) -> None:
    """Show the accuracies on a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{results['test_images']} test images")
    for column in ("", "accuracy", "parameters per device", "bytes per device"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("teacher", f"{results['teacher_accuracy']:.2%}", f"{results['teacher_parameters']:,}", "")
    parameters = ", ".join(f"{student['parameters']:,}" for student in results["students"])
    for precision, row in results["precisions"].items():
        table.add_row(
            f"{len(results['students'])} students, {precision}", f"{row['accuracy']:.2%}", parameters,
            ", ".join(f"{size:,}" for size in row["artifact_bytes"]),
        )  # fmt: skip
    best = results["precisions"][results["precision"]]["accuracy_by_mask"]
    full = max(map(int, best))
    for mask, accuracy in sorted(best.items(), key=lambda item: (-int(item[0]).bit_count(), int(item[0]))):
        missing = [str(k) for k in range(len(results["students"])) if not int(mask) >> k & 1]
        if int(mask) != full and len(results["students"]) <= 4:
            table.add_row(f"without {', '.join(missing)} ({results['precision']})", f"{accuracy:.2%}", "", "")
    Console(file=sys.stdout).print(table)
