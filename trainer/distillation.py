"""Training the joint network: one step, its batches, its validation. The paper, section 3.2, step 5."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.augmentation import AugmentedViews
from trainer.batches import SMALL_SIZE, pass_order
from trainer.configuration import RunConfiguration
from trainer.datasets import Split
from trainer.distribution import share
from trainer.losses import imitation_loss, label_loss, one_cycle, transfer_loss
from trainer.sgd import NesterovSgd
from trainer.teacher_outputs import Outputs

VALIDATION_BATCH = 250


@dataclass(frozen=True)
class Batch:
    """One step's images and what the teacher said about exactly these crops; `present`: (batch, K), 0 or 1."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    activities: NDArray[np.float32]
    logits: NDArray[np.float32]
    present: NDArray[np.float32]


@dataclass(frozen=True)
class BatchMaker:
    """Batches as a function of the step: images in the pass's order, views in turn, failout from its own seed."""

    split: Split
    plan: AugmentedViews
    outputs: Sequence[Outputs]
    settings: RunConfiguration

    @property
    def steps_per_pass(self) -> int:
        """Whole batches in one pass; what is left over waits for the next pass's order."""
        return max(1, len(self.split) // self.settings.batch)

    def __call__(self, step: int) -> Batch:
        """Batch number `step`."""
        number, within = divmod(step, self.steps_per_pass)
        order = pass_order(len(self.split), number, self.settings.seed)
        rows = order[within * self.settings.batch : (within + 1) * self.settings.batch]
        rng = np.random.default_rng([self.settings.seed, 1, step])
        # Each pass meets every image in one view; over `views` passes it meets all of them.
        view = number % len(self.outputs)
        outputs = self.outputs[view]
        return Batch(
            self.plan.cut(self.split.images, view, rows),
            self.split.labels[rows],
            outputs.activities[rows].astype(np.float32),
            outputs.logits[rows].astype(np.float32),
            draw_present(rng, len(rows), self.settings.students, self.settings.failout),
        )


def draw_present(rng: np.random.Generator, images: int, students: int, failout: float) -> NDArray[np.float32]:
    """Failout: each student is absent with probability `failout`, never all. Answer: (images, students), 0 or 1."""
    present = rng.random((images, students)) >= failout
    present[np.arange(images), rng.integers(0, students, images)] |= ~present.any(axis=1)
    return present.astype(np.float32)


def partition_energies(activities: NDArray[np.float32], partitions: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """E|a|^2 over a batch for each partition. activities: (batch, filters) -> (K,), float32."""
    squares = np.square(activities, dtype=np.float32).mean(axis=0)
    return np.array([squares[list(part)].sum() for part in partitions], np.float32)


class DistillationStep:
    """Forward, loss, backward, update; compiled once per image size. To be made in the scope of `strategy`."""

    def __init__(
        self, joint: Any, partitions: Sequence[Sequence[int]], settings: RunConfiguration, strategy: Any = None
    ) -> None:
        self._features = keras.Model(joint.input, joint.outputs[1:])
        self._head = joint.get_layer("head")
        self._joint = joint
        self._filters = partitions
        self._partitions = [tf.constant(part, tf.int32) for part in partitions]
        self._settings = settings
        self._strategy = strategy or tf.distribute.get_strategy()
        self._optimizer = NesterovSgd(joint.trainable_variables, settings.weight_decay)
        self._compiled = tf.function(self._update, reduce_retracing=True)

    @property
    def variables(self) -> list[Any]:
        """Everything that a checkpoint must hold."""
        return [*self._joint.variables, *self._optimizer.variables]

    def __call__(self, batch: Batch, step: int, steps_per_pass: int) -> dict[str, Any]:
        """Take one step on a global batch; returns its losses as tensors."""
        settings = self._settings
        rate = one_cycle(step, steps_per_pass * settings.passes, settings.rate)
        small = step < steps_per_pass * settings.small_passes
        size = tuple(round(side * SMALL_SIZE) for side in batch.pixels.shape[1:3]) if small else None
        parts = share(self._strategy, (batch.pixels, batch.labels, batch.activities, batch.logits, batch.present))
        energies = tf.constant(partition_energies(batch.activities, self._filters))
        result: dict[str, Any] = self._compiled(parts, energies, tf.constant(rate, tf.float32), size)
        return result

    def _update(self, parts: tuple[Any, ...], energies: Any, rate: Any, size: tuple[int, int] | None) -> dict[str, Any]:
        self._optimizer.set_rate(rate)
        losses = self._strategy.run(self._replica_step, args=(*parts, energies, size))
        mean = tf.distribute.ReduceOp.MEAN
        return {name: self._strategy.reduce(mean, value, axis=None) for name, value in losses.items()}

    def _replica_step(
        self, pixels: Any, labels: Any, activities: Any, logits: Any, present: Any, energies: Any,
        size: tuple[int, int] | None,
    ) -> dict[str, Any]:  # fmt: skip
        images = tf.cast(pixels, tf.float32)
        if size is not None:
            images = tf.image.resize(images, size, antialias=True)
        with tf.GradientTape() as tape:
            parts = self._losses(images, labels, activities, logits, present, energies)
        gradients = tape.gradient(parts["loss"], self._joint.trainable_variables)
        self._optimizer.apply(gradients, self._strategy.num_replicas_in_sync)
        return parts

    def _losses(
        self, pixels: Any, labels: Any, activities: Any, logits: Any, present: Any, energies: Any
    ) -> dict[str, Any]:
        """Loss and its parts, in training mode."""
        settings = self._settings
        features = self._features(pixels, training=True)
        features = features if isinstance(features, list) else [features]
        seen = [part * present[:, k : k + 1] for k, part in enumerate(features)]
        answers = self._head(tf.concat(seen, axis=1))
        parts = {
            "label_loss": label_loss(labels, answers),
            "imitation_loss": imitation_loss(logits, answers, settings.temperature),
            "transfer_loss": transfer_loss(activities, features, self._partitions, energies),
        }
        parts["loss"] = (
            settings.label_weight * parts["label_loss"]
            + (1 - settings.label_weight) * parts["imitation_loss"]
            + settings.transfer_weight * parts["transfer_loss"]
        )
        return parts


class Validator:
    """Accuracy with all students, and with each one missing (its features zero)."""

    def __init__(self, joint: Any, split: Split) -> None:
        self._split = split
        self._joint = joint
        self._forward = tf.function(
            lambda pixels: joint(tf.cast(pixels, tf.float32), training=False), reduce_retracing=True
        )

    def features(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Features of every student, (n, width) each, for images (n, height, width, channels), uint8."""
        parts = [
            [np.asarray(part) for part in self._forward(tf.constant(images[start : start + VALIDATION_BATCH]))[1:]]
            for start in range(0, len(images), VALIDATION_BATCH)
        ]
        return [np.concatenate(student) for student in zip(*parts, strict=True)]

    def __call__(self) -> dict[str, float]:
        """Accuracies on the validation split."""
        features = self.features(self._split.images)
        weights, bias = self._joint.get_layer("head").get_weights()
        scores = np.split(weights, np.cumsum([part.shape[1] for part in features])[:-1])
        shares = [part @ weight for part, weight in zip(features, scores, strict=True)]
        whole = np.sum(shares, axis=0) + bias
        result = {"val_accuracy": _accuracy(whole, self._split.labels)}
        if len(shares) > 1:
            for student, share in enumerate(shares):
                result[f"val_accuracy_without_{student}"] = _accuracy(whole - share, self._split.labels)
        return result


def _accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(np.mean(logits.argmax(axis=1) == labels))
