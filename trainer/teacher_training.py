"""Training a teacher by name: crop, flip, cutout, label smoothing, one-cycle SGD."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.augmentation import crop
from trainer.batches import SMALL_SIZE, pass_order
from trainer.configuration import RunConfiguration
from trainer.datasets import Split
from trainer.losses import one_cycle
from trainer.networks import airbench, catalogue
from trainer.progress import say
from trainer.run_context import RunContext
from trainer.run_directory import Stage, file_hash, write_json
from trainer.sgd import NesterovSgd
from trainer.student_network import pixel_statistics
from trainer.training_curves import CurveLog
from trainer.training_loop import LoopPlan, train

VALIDATION_BATCH = 250
WHITENING_IMAGES = 5_000
TRAINING_KEYS = (
    "teacher", "teacher_passes", "teacher_small_passes", "teacher_rate", "teacher_smoothing", "teacher_cutout", "seed",
    "split_seed", "dataset", "batch", "weight_decay", "crop_pad", "flip", "bfloat16",
)  # fmt: skip


@dataclass(frozen=True)
class TeacherBatches:
    """Batches as a function of the step."""

    split: Split
    settings: RunConfiguration

    @property
    def steps_per_pass(self) -> int:
        """Whole batches in one pass."""
        return max(1, len(self.split) // self.settings.batch)

    def __call__(self, step: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Batch number `step`: images, labels."""
        settings = self.settings
        number, within = divmod(step, self.steps_per_pass)
        rows = pass_order(len(self.split), number, settings.seed)[within * settings.batch :][: settings.batch]
        rng = np.random.default_rng([settings.seed, 2, step])
        images = self.split.images[rows]
        pad = min(settings.crop_pad, min(images.shape[1:3]) - 1)
        images = crop(images, rng.integers(0, 2 * pad + 1, (len(rows), 2)).astype(np.uint8), pad)
        if settings.flip:
            # Alternating (arXiv 2404.00498): two passes in a row show both sides of every image.
            first = np.random.default_rng([settings.seed, 3]).integers(0, 2, len(self.split))
            mirrored = (first[rows] + number) % 2 == 1
            images[mirrored] = images[mirrored, :, ::-1]
        if settings.teacher_cutout:
            cut_out(images, settings.teacher_cutout, rng)
        return images, self.split.labels[rows]


def cut_out(images: NDArray[np.uint8], side: int, rng: np.random.Generator) -> None:
    """Grey out a square in each image, in place (DeVries and Taylor, arXiv 1708.04552). images: (n, h, w, c), uint8."""
    height, width = images.shape[1:3]
    top = rng.integers(-(side // 2), height - side // 2, len(images))[:, None]
    left = rng.integers(-(side // 2), width - side // 2, len(images))[:, None]
    rows, columns = np.arange(height)[None], np.arange(width)[None]
    inside_rows, inside_columns = (rows >= top) & (rows < top + side), (columns >= left) & (columns < left + side)
    images[inside_rows[:, :, None] & inside_columns[:, None, :]] = 127


class TeacherStep:
    """Cross-entropy, backward, update."""

    def __init__(self, network: Any, settings: RunConfiguration, steps_per_pass: int) -> None:
        self._network, self._settings = network, settings
        self._steps = steps_per_pass * settings.teacher_passes
        self._small_steps = steps_per_pass * settings.teacher_small_passes
        self._optimizer = NesterovSgd(network.trainable_variables, settings.weight_decay)
        self._compiled = tf.function(self._update, reduce_retracing=True)

    @property
    def variables(self) -> list[Any]:
        """Everything that a checkpoint must hold."""
        return [*self._network.variables, *self._optimizer.variables]

    def __call__(self, batch: tuple[NDArray[np.uint8], NDArray[np.int64]], step: int) -> dict[str, Any]:
        """Take one step; returns its loss as a tensor."""
        rate = one_cycle(step, self._steps, self._settings.teacher_rate)
        images, labels = batch
        size = tuple(round(side * SMALL_SIZE) for side in images.shape[1:3]) if step < self._small_steps else None
        return {"loss": self._compiled(tf.constant(images), tf.constant(labels), tf.constant(rate, tf.float32), size)}

    def _update(self, pixels: Any, labels: Any, rate: Any, size: tuple[int, int] | None) -> Any:
        images = tf.cast(pixels, tf.float32)
        if size is not None:
            images = tf.image.resize(images, size, antialias=True)
        with tf.GradientTape() as tape:
            logits = self._network(images, training=True)
            smoothing, classes = self._settings.teacher_smoothing, logits.shape[-1]
            targets = tf.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        self._optimizer.set_rate(rate)
        self._optimizer.apply(tape.gradient(loss, self._network.trainable_variables))
        return loss


def train_teacher(context: RunContext, stage: Stage) -> dict[str, Any]:
    """Train, or go on training; writes teacher.keras and history.json."""
    settings, dataset = context.run.configuration, context.dataset
    content = settings.model_dump(mode="json")
    stage.claim({key: content[key] for key in TRAINING_KEYS})
    if stage.finished:
        return stage.results()
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if settings.bfloat16 else "float32")
    try:
        mean, deviation = pixel_statistics(dataset.train.images)
        network = catalogue.classifier(
            settings.teacher, dataset.image_shape, len(dataset.classes), mean, deviation,
            any_size=settings.teacher_small_passes > 0,
        )  # fmt: skip
        if airbench.matches(settings.teacher):
            airbench.prepare(network, dataset.train.images[:WHITENING_IMAGES])
    finally:
        keras.config.set_dtype_policy("float32")
    batches = TeacherBatches(dataset.train, settings)
    step = TeacherStep(network, settings, batches.steps_per_pass)
    say(f"teacher: {settings.teacher}, {network.count_params()} parameters, {settings.teacher_passes} passes")
    with CurveLog(stage.folder / "logs") as curves:
        plan = LoopPlan(
            "teacher", settings.teacher_passes, batches.steps_per_pass, batches, step,
            lambda: {"val_accuracy": _accuracy(network, dataset.validation)}, step.variables, stage.folder,
        )  # fmt: skip
        state = train(plan, curves.add)
    file = stage.folder / "teacher.keras"
    partial = stage.folder / ".partial.keras"
    network.save(partial)
    partial.replace(file)
    write_json(stage.folder / "history.json", state.history)
    results = {**state.history[-1], "parameters": network.count_params(), "sha256": file_hash(file)}
    stage.finish(results, state.seconds)
    return results


def _accuracy(network: Any, split: Split) -> float:
    forward = tf.function(lambda pixels: network(tf.cast(pixels, tf.float32), training=False), reduce_retracing=True)
    right = 0
    for start in range(0, len(split), VALIDATION_BATCH):
        part = split.take(slice(start, start + VALIDATION_BATCH))
        right += int(np.sum(np.argmax(forward(tf.constant(part.images)), axis=1) == part.labels))
    return right / len(split)
