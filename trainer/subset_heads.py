"""Heads for every subset of present students, refitted on features as devices send them. Pure NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.head import MergeHead, SubsetHead

MAX_STUDENTS_WITH_SUBSETS = 8  # 255 heads; above, the mean of a missing student's features stands in for them
ITERATIONS = 150  # of accelerated gradient descent on whitened features, where condition numbers are near 1
LABEL_SHARE = 0.3  # of the target, the rest is the teacher's answer
RIDGE = 1e-4
WHITENING_FLOOR = 1e-3  # of the largest variance: directions below it are int8 noise
TEMPERATURES = np.geomspace(0.25, 4.0, 65)

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class HeadSamples:
    """features: one (n, width) per student; labels: (n,); teacher_logits: (n, classes)."""

    features: Sequence[FloatArray]
    labels: NDArray[np.int64]
    teacher_logits: NDArray[np.float32]


def fit_heads(training: HeadSamples, validation: HeadSamples, joint: tuple[FloatArray, FloatArray]) -> MergeHead:
    """One head per subset (K <= 8; only the full one above), each the better of two on validation.

    joint: weights (all widths, classes) and bias (classes,) of the FC head trained with the students. The candidates
    for a subset are the joint head with the absent features at their mean, and a head fitted to the subset alone.
    """
    widths = tuple(part.shape[1] for part in training.features)
    students, classes = len(widths), joint[0].shape[1]
    mean = np.concatenate([part.mean(axis=0) for part in training.features]).astype(np.float32)
    full = (1 << students) - 1
    masks = range(1, full + 1) if students <= MAX_STUDENTS_WITH_SUBSETS else (full,)
    targets = soft_targets(training.teacher_logits, training.labels)
    heads = {mask: _best_head(mask, training, targets, validation, joint, mean) for mask in masks}
    return MergeHead(widths, classes, heads, mean)


def soft_targets(teacher_logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """LABEL_SHARE one-hot + (1 - LABEL_SHARE) softmax(teacher). (n, classes) -> same, rows sum to 1.

    >>> soft_targets(np.array([[0.0, 0.0]]), np.array([1])).round(2).tolist()
    [[0.35, 0.65]]
    """
    targets = (1 - LABEL_SHARE) * softmax(teacher_logits.astype(np.float64))
    targets[np.arange(len(labels)), labels] += LABEL_SHARE
    return targets


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Row-wise softmax. (n, classes) -> same, float64.

    >>> softmax(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def fit_softmax(features: FloatArray, targets: NDArray[np.float64]) -> tuple[FloatArray, FloatArray]:
    """Weights (width, classes) and bias (classes,) that minimise the cross-entropy to `targets` plus a ridge.

    features: (n, width). Nesterov's method with step 1/L; whitening makes L = (largest variance 1) / 2 + RIDGE.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / len(features))
    floor = max(variances[-1], 1e-12) * WHITENING_FLOOR
    whitening = directions / np.sqrt(np.maximum(variances, floor))
    whitened = np.hstack([centred @ whitening, np.ones((len(features), 1))])
    weights = ahead = np.zeros((whitened.shape[1], targets.shape[1]))
    step = 1 / (0.5 + RIDGE)
    for iteration in range(ITERATIONS):
        gradient = whitened.T @ (softmax(whitened @ ahead) - targets) / len(features) + RIDGE * ahead
        moved = ahead - step * gradient
        ahead = moved + iteration / (iteration + 3) * (moved - weights)
        weights = moved
    unwhitened = whitening @ weights[:-1]
    return unwhitened.astype(np.float32), (weights[-1] - mean @ unwhitened).astype(np.float32)


def calibrated_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Temperature T of softmax(logits / T) with the lowest negative log-likelihood, of 65 between 1/4 and 4.

    >>> calibrated_temperature(np.array([[9.0, 0.0], [9.0, 0.0]]), np.array([0, 1]))
    4.0
    """
    losses = [_negative_log_likelihood(logits / t, labels) for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def _best_head(
    mask: int, training: HeadSamples, targets: NDArray[np.float64], validation: HeadSamples,
    joint: tuple[FloatArray, FloatArray], mean: FloatArray,
) -> SubsetHead:  # fmt: skip
    widths = [part.shape[1] for part in training.features]
    present = [student for student in range(len(widths)) if mask >> student & 1]
    columns = np.concatenate([np.full(width, mask >> student & 1, bool) for student, width in enumerate(widths)])
    imputed = joint[0][columns], (joint[1] + mean[~columns] @ joint[0][~columns]).astype(np.float32)
    fitted = fit_softmax(np.hstack([training.features[student] for student in present]), targets)
    seen = np.hstack([validation.features[student] for student in present])
    ranked: list[tuple[float, float, int, SubsetHead]] = []
    for weights, bias in (imputed, fitted):
        logits = seen @ weights + bias
        temperature = calibrated_temperature(logits, validation.labels)
        accuracy = float(np.mean(logits.argmax(axis=1) == validation.labels))
        loss = _negative_log_likelihood(logits / temperature, validation.labels)
        ranked.append((-accuracy, loss, len(ranked), SubsetHead(weights, bias, temperature)))
    return min(ranked)[-1]


def _negative_log_likelihood(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    likelihood = softmax(logits)[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.maximum(likelihood, 1e-12))))
