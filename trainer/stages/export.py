"""Stage `export`: the deployment directory RUN/export, complete or absent."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
from trainer.export_checks import ExportAccuracy, accuracy_table, check_accuracies, head_accuracy
from trainer.feature_budget import BudgetRow, budget_table, choose_row, chosen_codecs, feature_budget
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
from trainer.tvm_artifacts import compile_students, tvm_targets
from trainer.tvm_export.outcome import CompiledStudent, ExportedModules
from trainer.worker_pool import map_in_workers

CALIBRATION_ROWS = 5_000  # ranges of channels settle after a thousand images
HEAD_IMAGES = 20_000  # 257 x 10 weights do not gain from more; 20 s of two students
PREFERENCE = (
    "int8",
    "dynamic",
    "float16",
    "float32",
)  # the order in which agents choose; heads are fitted to the first
POOL_FROM_IMAGES = 5_000  # starting two processes costs about a second


def run(context: RunContext) -> dict[str, Any]:
    """Convert, compile, check, fit the heads, write the manifest; returns the stage's results."""
    settings, stage = context.run.configuration, context.run.stage("exporting")
    weights = context.run.path / "distill" / "joint.weights.h5"
    context.run.stage("distill").results()
    stage.claim(_inputs(context, file_hash(weights)))
    if stage.finished:
        _show(stage.results())
        return stage.results()
    started = time.perf_counter()
    joint = trained_joint(context)
    folder = context.run.path / ".export.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    exported = _artifacts(context, joint, folder)
    modules = _modules(context, exported, folder)
    seen = _seen_features(context, exported)
    rows, row, codecs = _codecs(context, joint, seen)
    head, accuracies = _head(context, joint, seen, codecs)
    found, keras_accuracy = _accuracies(context, joint, exported, modules, codecs, head)
    check_accuracies(found, keras_accuracy, len(context.dataset.validation.labels))
    write_atomically(folder / "head.npz", head.to_bytes())
    manifest = _manifest(context, folder, exported, modules, codecs, accuracies)
    write_atomically(folder / "manifest.json", manifest.to_bytes())
    target = context.run.path / "export"
    shutil.rmtree(target, ignore_errors=True)
    folder.replace(target)
    sync_folder(context.run.path)
    full = (1 << settings.students) - 1
    errors = {f.path.name: f.relative_error for _, files in exported for f in files}
    errors |= {c.path.name: m.relative_error for m in modules for c in m.compiled if c.target == m.ran}
    results = {
        "validation_accuracy": accuracies[full],
        "validation_accuracy_by_mask": {str(mask): value for mask, value in accuracies.items()},
        "relative_errors": errors,
        "bytes": {a.file: a.size_bytes for s in manifest.students for a in s.artifacts},
        "keras_accuracy": keras_accuracy,
        "accuracies": [asdict(one) for one in found],
        "feature_encoding": row.title,
        "feature_budget": [asdict(one) for one in rows],
        "compile_s": {c.path.name: round(c.compile_s, 2) for m in modules for c in m.compiled},
    }
    stage.finish(results, time.perf_counter() - started)
    _show(results)
    return results


def _inputs(context: RunContext, weights: str) -> dict[str, Any]:
    """What decides the export. Settings younger than the first runs count only where they differ from the default."""
    settings = context.run.configuration
    inputs = {
        "weights": weights, "precisions": list(settings.precisions), "name": settings.name, "version": settings.version,
    }  # fmt: skip
    for name in ("tvm", "feature_encoding", "feature_points"):
        if getattr(settings, name) != type(settings).model_fields[name].default:
            inputs[name] = getattr(settings, name)
    return inputs


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


def _modules(
    context: RunContext, exported: list[tuple[Any, list[ExportedStudent]]], folder: Path
) -> list[ExportedModules]:
    """Compile the float32 files, checked against them on the whole validation split; [] without TVM."""
    settings, images = context.run.configuration, context.dataset.validation.images
    files = []
    for index, (student, made) in enumerate(exported):
        path = folder / f"student-{index}.float32.tflite"
        if not any(file.path == path for file in made) and tvm_targets(settings.tvm):
            export_student(student, "float32", images, images, path)
        files.append(path)
    modules = compile_students(files, images, settings.tvm, context.workers)
    if "float32" not in settings.precisions:
        for path in files:
            path.unlink(missing_ok=True)  # only TVM had asked for it
    return modules


@dataclass(frozen=True)
class _SeenFeatures:
    """What the preferred files answer, per student: to `rows` of the training images, and to the validation split."""

    rows: NDArray[np.int64]
    training: list[StudentFeatures]
    validation: list[StudentFeatures]


def _seen_features(context: RunContext, exported: list[tuple[Any, list[ExportedStudent]]]) -> _SeenFeatures:
    dataset, rows = context.dataset, np.arange(min(HEAD_IMAGES, len(context.dataset.train)))
    images = view_plan(context).cut(dataset.train.images, 0, rows)
    contents = [_preferred(files).path.read_bytes() for _, files in exported]
    say(f"export: features of {len(rows)} training images")
    return _SeenFeatures(
        rows, _features(context, contents, images), _features(context, contents, dataset.validation.images)
    )


def _features(context: RunContext, contents: list[bytes], images: NDArray[np.uint8]) -> list[StudentFeatures]:
    jobs = [(content, images) for content in contents]
    return map_in_workers(features_of, jobs, context.workers, len(images) >= POOL_FROM_IMAGES)


def _codecs(context: RunContext, joint: Any, seen: _SeenFeatures) -> tuple[list[BudgetRow], BudgetRow, list[Codec]]:
    """Every encoding through the trained head on validation; the shortest that loses no more than allowed."""
    settings, (weights, bias) = context.run.configuration, head_weights(joint)
    calibration = [part.real()[:CALIBRATION_ROWS] for part in seen.training]
    rows = feature_budget(
        calibration,
        [part.real() for part in seen.validation],
        context.dataset.validation.labels,
        lambda parts: np.argmax(np.concatenate(parts, axis=1) @ weights + bias, axis=1),
    )
    row = choose_row(rows, settings.feature_encoding, settings.feature_points)
    return rows, row, chosen_codecs(row, calibration)


def _head(
    context: RunContext, joint: Any, seen: _SeenFeatures, codecs: list[Codec]
) -> tuple[MergeHead, dict[int, float]]:
    dataset = context.dataset

    def wire(raw: list[StudentFeatures]) -> list[NDArray[np.float32]]:
        return [over_the_wire(part, codec) for part, codec in zip(raw, codecs, strict=True)]

    training = HeadSamples(
        wire(seen.training),
        dataset.train.labels[seen.rows],
        training_outputs(context)[0].logits[seen.rows].astype(np.float32),
    )
    validation = HeadSamples(
        wire(seen.validation), dataset.validation.labels, validation_outputs(context).logits.astype(np.float32)
    )
    say(f"export: fitting heads on {len(seen.rows)} training images")
    head = fit_heads(training, validation, head_weights(joint))
    answers = merge_all(head, validation.features, sorted(head.heads))
    return head, answers.accuracies(dataset.validation.labels)


def _accuracies(
    context: RunContext, joint: Any, exported: list[tuple[Any, list[ExportedStudent]]], modules: list[ExportedModules],
    codecs: list[Codec], head: MergeHead,
) -> tuple[list[ExportAccuracy], float]:  # fmt: skip
    """Every precision of every engine as devices will use it, and Keras with the head of its training."""
    validation, found = context.dataset.validation, []
    logits = joint.predict(validation.images, batch_size=250, verbose=0)[0]
    keras_accuracy = float(np.mean(logits.argmax(axis=1) == validation.labels))

    def add(engine: str, precision: str, raw: list[StudentFeatures], size_bytes: int) -> None:
        arrived = [over_the_wire(part, codec) for part, codec in zip(raw, codecs, strict=True)]
        found.append(ExportAccuracy(engine, precision, head_accuracy(head, arrived, validation.labels), size_bytes))

    for number, precision in enumerate(context.run.configuration.precisions):
        contents = [files[number].path.read_bytes() for _, files in exported]
        add("tflite", precision, _features(context, contents, validation.images), sum(map(len, contents)))
    if modules:
        ran = [c for m in modules for c in m.compiled if c.target == m.ran]
        raw = [StudentFeatures(m.features, None) for m in modules]
        add("tvm", "float32", raw, sum(c.size_bytes for c in ran))
    return found, keras_accuracy


def _show(results: dict[str, Any]) -> None:
    """Print what was checked, and bytes against accuracy; nothing for exports of before there was a budget."""
    if "feature_budget" not in results:
        return
    found = [ExportAccuracy(**one) for one in results["accuracies"]]
    errors: dict[str, float] = {}
    for file, error in results["relative_errors"].items():
        name = "tvm float32" if file.endswith(".so") else f"tflite {file.split('.')[1]}"
        errors[name] = max(errors.get(name, 0.0), error)
    say("\n" + accuracy_table(found, results["keras_accuracy"], errors))
    rows = [BudgetRow(**one) for one in results["feature_budget"]]
    chosen = next(row for row in rows if row.title == results["feature_encoding"])
    say("\nFor each frame and student, through the head of the training:\n\n" + budget_table(rows, chosen) + "\n")


def _manifest(
    context: RunContext, folder: Path, exported: list[tuple[Any, list[ExportedStudent]]],
    modules: list[ExportedModules], codecs: list[Codec], accuracies: dict[int, float],
) -> Manifest:  # fmt: skip
    settings, dataset = context.run.configuration, context.dataset
    partition, before = read_partition(context), context.run.stage("activations").results()
    pixels = golden_image(dataset.image_shape, settings.seed)
    write_atomically(folder / "golden-input.bin", pixels.tobytes())
    edges = encode_edges(strongest_edges(load_filter_graph(context.run.path / "partition" / "graph.npz")[0]))
    write_atomically(folder / "graph.json", edges)
    height, width, channels = dataset.image_shape
    students = tuple(
        _student(
            index, settings.student_networks()[index], partition.filters[index], *pair,
            modules[index].compiled if modules else (), codecs[index], pixels,
        )
        for index, pair in enumerate(exported)
    )  # fmt: skip
    return Manifest(
        schema=Manifest.schema_for(students),
        name=settings.name,
        version=settings.version,
        created=datetime.now(UTC).replace(microsecond=0),
        teacher=Path(settings.teacher).stem,
        classes=dataset.classes,
        input=InputShape.model_validate({"height": height, "width": width, "channels": channels}),
        filters=before["filters"],
        students=students,
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
    index: int, network: str, filters: tuple[int, ...], student: Any, files: list[ExportedStudent],
    compiled: Sequence[CompiledStudent], codec: Codec, pixels: NDArray[np.uint8],
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
        artifacts=(*(_artifact(file) for file in files), *(_compiled_artifact(module) for module in compiled)),
        codec=codec,
        golden=Golden(
            features=tuple(float(value) for value in golden), tolerance=golden_tolerance(golden, answers, steps)
        ),
    )


def _artifact(file: ExportedStudent) -> Artifact:
    entry = file_entry(PurePosixPath(file.path.name), file.path.read_bytes())
    return Artifact.model_validate({**entry.model_dump(), "engine": "tflite", "precision": file.precision})


def _compiled_artifact(module: CompiledStudent) -> Artifact:
    entry = file_entry(PurePosixPath(module.path.name), module.path.read_bytes())
    return Artifact.model_validate({
        **entry.model_dump(), "engine": "tvm", "precision": "float32", "target": module.target,
        "engine_version": module.engine_version,
    })  # fmt: skip
