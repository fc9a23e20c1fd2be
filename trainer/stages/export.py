"""Stage `export`: the deployment directory RUN/export, complete or absent."""

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.atomic_file import sync_folder, write_atomically
from edge_agent.protocol.filter_edges import encode_edges
from edge_agent.protocol.head import MergeHead
from edge_agent.protocol.manifest import Artifact, Codec, Golden, InputShape, Manifest, Student, file_entry
from trainer.artifacts import ExportedStudent, export_student
from trainer.filter_graph import load_filter_graph, strongest_edges
from trainer.golden import golden_image, golden_tolerance
from trainer.litert_batches import StudentFeatures, features_of
from trainer.merged_answers import merge_all, over_the_wire
from trainer.network_cost import network_cost
from trainer.progress import progress_bar, say
from trainer.run_context import RunContext
from trainer.run_directory import file_hash
from trainer.stages.activations import training_outputs, validation_outputs, view_plan
from trainer.stages.distill import trained_joint
from trainer.stages.partition import read_partition
from trainer.student_network import extract_student, head_weights
from trainer.subset_heads import HeadSamples, fit_heads
from trainer.worker_pool import map_in_workers

HEAD_IMAGES = 20_000  # 257 x 10 weights do not gain from more; 20 s of two students
PREFERENCE = (
    "int8",
    "dynamic",
    "float16",
    "float32",
)  # the order in which agents choose; heads are fitted to the first
POOL_FROM_IMAGES = 5_000  # starting two processes costs about a second


def run(context: RunContext) -> dict[str, Any]:
    """Convert, check, fit the heads, write the manifest; returns the stage's results."""
    settings, stage = context.run.configuration, context.run.stage("exporting")
    weights = context.run.path / "distill" / "joint.weights.h5"
    context.run.stage("distill").results()
    stage.claim({
        "weights": file_hash(weights), "precisions": list(settings.precisions), "name": settings.name,
        "version": settings.version,
    })  # fmt: skip
    if stage.finished:
        return stage.results()
    started = time.perf_counter()
    joint = trained_joint(context)
    folder = context.run.path / ".export.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    exported = _artifacts(context, joint, folder)
    codecs = [_codec(student, context) for student, _ in exported]
    head, accuracies = _head(context, joint, exported, codecs)
    write_atomically(folder / "head.npz", head.to_bytes())
    manifest = _manifest(context, folder, exported, codecs, accuracies)
    write_atomically(folder / "manifest.json", manifest.to_bytes())
    target = context.run.path / "export"
    shutil.rmtree(target, ignore_errors=True)
    folder.replace(target)
    sync_folder(context.run.path)
    full = (1 << settings.students) - 1
    results = {
        "validation_accuracy": accuracies[full],
        "validation_accuracy_by_mask": {str(mask): value for mask, value in accuracies.items()},
        "relative_errors": {file.path.name: file.relative_error for _, files in exported for file in files},
        "bytes": {a.file: a.size_bytes for s in manifest.students for a in s.artifacts},
    }
    stage.finish(results, time.perf_counter() - started)
    return results


def _artifacts(context: RunContext, joint: Any, folder: Path) -> list[tuple[Any, list[ExportedStudent]]]:
    settings, dataset = context.run.configuration, context.dataset
    exported = []
    with progress_bar("export", settings.students * len(settings.precisions)) as advance:
        for index in range(settings.students):
            student, files = extract_student(joint, index), []
            for precision in settings.precisions:
                path = folder / f"student-{index}.{precision}.tflite"
                files.append(export_student(student, precision, dataset.train.images, dataset.validation.images, path))
                advance(1, path.name)
            exported.append((student, files))
    return exported


def _preferred(files: list[ExportedStudent]) -> ExportedStudent:
    return min(files, key=lambda file: PREFERENCE.index(file.precision))


def _codec(student: Any, context: RunContext) -> Codec:
    """How float features travel: 255 int8 steps from 0 to the largest feature on some training images."""
    images = context.dataset.train.images[:1000].astype(np.float32)
    largest = float(np.max(student.predict(images, batch_size=250, verbose=0)))
    return Codec(encoding="int8", scale=max(largest, 1e-6) / 255, zero_point=-128)


def _head(
    context: RunContext, joint: Any, exported: list[tuple[Any, list[ExportedStudent]]], codecs: list[Codec]
) -> tuple[MergeHead, dict[int, float]]:
    dataset, rows = context.dataset, np.arange(min(HEAD_IMAGES, len(context.dataset.train)))
    images = view_plan(context).cut(dataset.train.images, 0, rows)
    contents = [_preferred(files).path.read_bytes() for _, files in exported]

    def wire(pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        jobs = [(content, pixels) for content in contents]
        raw: list[StudentFeatures] = map_in_workers(features_of, jobs, context.workers, len(pixels) >= POOL_FROM_IMAGES)
        return [over_the_wire(part, codec) for part, codec in zip(raw, codecs, strict=True)]

    training = HeadSamples(
        wire(images), dataset.train.labels[rows], training_outputs(context)[0].logits[rows].astype(np.float32)
    )
    validation = HeadSamples(
        wire(dataset.validation.images),
        dataset.validation.labels,
        validation_outputs(context).logits.astype(np.float32),
    )
    say(f"export: fitting heads on {len(rows)} training images")
    head = fit_heads(training, validation, head_weights(joint))
    answers = merge_all(head, validation.features, sorted(head.heads))
    return head, answers.accuracies(dataset.validation.labels)


def _manifest(
    context: RunContext, folder: Path, exported: list[tuple[Any, list[ExportedStudent]]], codecs: list[Codec],
    accuracies: dict[int, float],
) -> Manifest:  # fmt: skip
    settings, dataset = context.run.configuration, context.dataset
    partition, before = read_partition(context), context.run.stage("activations").results()
    pixels = golden_image(dataset.image_shape, settings.seed)
    write_atomically(folder / "golden-input.bin", pixels.tobytes())
    edges = encode_edges(strongest_edges(load_filter_graph(context.run.path / "partition" / "graph.npz")[0]))
    write_atomically(folder / "graph.json", edges)
    height, width, channels = dataset.image_shape
    return Manifest(
        schema=1,
        name=settings.name,
        version=settings.version,
        created=datetime.now(UTC).replace(microsecond=0),
        teacher=Path(settings.teacher).stem,
        classes=dataset.classes,
        input=InputShape.model_validate({"height": height, "width": width, "channels": channels}),
        filters=before["filters"],
        students=tuple(
            _student(index, settings.student_networks()[index], partition.filters[index], *pair, codecs[index], pixels)
            for index, pair in enumerate(exported)
        ),
        head=file_entry(PurePosixPath("head.npz"), (folder / "head.npz").read_bytes()),
        golden_input=file_entry(PurePosixPath("golden-input.bin"), pixels.tobytes()),
        graph=file_entry(PurePosixPath("graph.json"), edges),
        metrics={
            "validation_accuracy": accuracies[(1 << settings.students) - 1],
            "teacher_validation_accuracy": before["validation_accuracy"],
            "teacher_parameters": before["parameters"],
        },
    )


def _student(
    index: int, network: str, filters: tuple[int, ...], student: Any, files: list[ExportedStudent], codec: Codec,
    pixels: NDArray[np.uint8],
) -> Student:  # fmt: skip
    golden = np.asarray(student(pixels[None].astype(np.float32), training=False))[0]
    answers = [features_of(file.path, pixels[None]).real()[0] for file in files]
    steps = [file.feature_step for file in files if file.feature_step is not None]
    return Student(
        index=index,
        network=network,
        filters=filters,
        width=len(filters),
        parameters=sum(int(np.prod(w.shape)) for w in student.trainable_weights),
        macs=network_cost(student).macs,
        artifacts=tuple(_artifact(file) for file in files),
        codec=codec,
        golden=Golden(
            features=tuple(float(value) for value in golden), tolerance=golden_tolerance(golden, answers, steps)
        ),
    )


def _artifact(file: ExportedStudent) -> Artifact:
    entry = file_entry(PurePosixPath(file.path.name), file.path.read_bytes())
    return Artifact.model_validate({**entry.model_dump(), "engine": "tflite", "precision": file.precision})
