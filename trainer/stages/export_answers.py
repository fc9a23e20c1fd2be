"""What exported files answer: their features, how these travel, the heads that merge them, and their accuracies."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.head import MergeHead
from edge_agent.protocol.manifest import Codec
from trainer.export_checks import ExportAccuracy, head_accuracy
from trainer.feature_budget import BudgetRow, choose_row, chosen_codecs, feature_budget
from trainer.litert_batches import StudentFeatures, features_of
from trainer.merged_answers import merge_all, over_the_wire
from trainer.progress import say
from trainer.run_context import RunContext
from trainer.stages.activations import training_outputs, validation_outputs, view_plan
from trainer.stages.export_files import Exported, preferred
from trainer.student_network import head_weights
from trainer.subset_heads import HeadSamples, fit_heads
from trainer.tvm_export.outcome import ExportedModules
from trainer.worker_pool import map_in_workers

CALIBRATION_ROWS = 5_000  # ranges of channels settle after a thousand images
HEAD_IMAGES = 20_000  # 257 x 10 weights do not gain from more; 20 s of two students
POOL_FROM_IMAGES = 5_000  # starting two processes costs about a second


@dataclass(frozen=True)
class SeenFeatures:
    """What the preferred files answer, per student: to `rows` of the training images, and to the validation split."""

    rows: NDArray[np.int64]
    training: list[StudentFeatures]
    validation: list[StudentFeatures]


def seen_features(context: RunContext, exported: Exported) -> SeenFeatures:
    """Run the preferred files over the images that codecs and heads are fitted to."""
    dataset, rows = context.dataset, np.arange(min(HEAD_IMAGES, len(context.dataset.train)))
    images = view_plan(context).cut(dataset.train.images, 0, rows)
    contents = [preferred(files).path.read_bytes() for _, files in exported]
    say(f"export: features of {len(rows)} training images")
    return SeenFeatures(
        rows, _features(context, contents, images), _features(context, contents, dataset.validation.images)
    )


def _features(context: RunContext, contents: list[bytes], images: NDArray[np.uint8]) -> list[StudentFeatures]:
    jobs = [(content, images) for content in contents]
    return map_in_workers(features_of, jobs, context.workers, len(images) >= POOL_FROM_IMAGES)


def choose_codecs(
    context: RunContext, joint: Any, seen: SeenFeatures
) -> tuple[list[BudgetRow], BudgetRow, list[Codec]]:
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


def fitted_head(
    context: RunContext, joint: Any, seen: SeenFeatures, codecs: list[Codec]
) -> tuple[MergeHead, dict[int, float]]:
    """Heads for every set of students, fitted to features as they arrive; accuracy on validation by bitmask."""
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


def export_accuracies(
    context: RunContext, joint: Any, exported: Exported, modules: list[ExportedModules],
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
        raw = [StudentFeatures(m.features, None) for m in modules]
        add("tvm", "float32", raw, sum(m.shown.size_bytes for m in modules))
    return found, keras_accuracy
