"""The distillation loss: labels, softened teacher answers, and each student's partition of the activities."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def label_loss(labels: Any, logits: Any) -> Any:
    """Mean cross-entropy. labels: (batch,), int; logits: (batch, classes), float32."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def imitation_loss(teacher_logits: Any, logits: Any, temperature: float) -> Any:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over the batch (Hinton et al., arXiv 1503.02531).

    T^2 keeps the gradients' size independent of T.
    """
    soft = tf.nn.softmax(teacher_logits / temperature)
    log_ratio = tf.nn.log_softmax(teacher_logits / temperature) - tf.nn.log_softmax(logits / temperature)
    return temperature**2 * tf.reduce_mean(tf.reduce_sum(soft * log_ratio, axis=1))


def transfer_loss(activities: Any, features: Sequence[Any], partitions: Sequence[Any], energies: Any) -> Any:
    """Mean over students of E|f - a|^2 / E|a|^2, a being the teacher's activities of the student's own filters.

    activities: (batch, filters), float32; features[k]: (batch, |partition k|), float32; partitions[k]: filter numbers;
    energies: (K,), E|a|^2 of the whole batch, of which this may be one worker's share.
    Differs from the reference, which compares directions only: lengths matter to the FC head, and the quotient
    makes the weight of this term independent of the width.
    """
    terms = []
    for number, (student, partition) in enumerate(zip(features, partitions, strict=True)):
        wanted = tf.gather(activities, partition, axis=1)
        terms.append(tf.reduce_mean(tf.reduce_sum((student - wanted) ** 2, axis=1)) / (energies[number] + 1e-6))
    return tf.add_n(terms) / len(terms)


def one_cycle(step: int, steps: int, highest: float, warm_up: float = 0.2) -> float:
    """Learning rate: from highest / 10 up in a straight line, then down along a cosine to 0.

    >>> [round(one_cycle(step, 10, 1.0), 2) for step in (0, 2, 6, 10)]
    [0.1, 1.0, 0.5, 0.0]
    """
    import math

    share = step / max(1, steps)
    if share < warm_up:
        return highest * (0.1 + 0.9 * share / warm_up)
    return highest * 0.5 * (1 + math.cos(math.pi * (share - warm_up) / (1 - warm_up)))
