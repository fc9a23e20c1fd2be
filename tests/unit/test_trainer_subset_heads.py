import numpy as np
import pytest

from edge_agent.protocol.head import MergeHead
from trainer.merged_answers import merge_all
from trainer.subset_heads import HeadSamples, calibrated_temperature, fit_heads, fit_softmax, softmax

CLASSES = 4


def samples(count: int, widths: tuple[int, ...], seed: int, hidden: tuple[int, ...] = ()) -> HeadSamples:
    """Features that hold the class, but for students in `hidden`, which see noise."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1.5, (CLASSES, sum(widths)))
    labels = rng.integers(0, CLASSES, count)
    features = np.maximum(centres[labels] + rng.normal(0, 1, (count, sum(widths))) + 2, 0).astype(np.float32)
    parts = np.split(features, np.cumsum(widths)[:-1], axis=1)
    parts = [rng.random(p.shape).astype(np.float32) if k in hidden else p for k, p in enumerate(parts)]
    return HeadSamples(parts, labels, 5 * np.eye(CLASSES, dtype=np.float32)[labels])


def random_joint(width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(5).normal(size=(width, CLASSES)).astype(np.float32), np.zeros(CLASSES, np.float32)


def test_every_subset_gets_a_head_better_than_the_mean_filled_one():
    widths = (5, 3, 6)
    train, validation, test = (samples(1500, widths, seed) for seed in (1, 2, 3))
    head = fit_heads(train, validation, random_joint(14))
    assert sorted(head.heads) == list(range(1, 8))
    restored = MergeHead.from_bytes(head.to_bytes(), widths, CLASSES)
    filled = MergeHead(widths, CLASSES, {7: head.heads[7]}, head.mean)
    for mask in (1, 2, 4, 3, 5, 6):
        own = merge_all(restored, test.features, [mask]).accuracies(test.labels)[mask]
        with_mean = merge_all(filled, test.features, [mask]).accuracies(test.labels)[mask]
        assert own >= with_mean, mask
    full = merge_all(restored, test.features, [7]).accuracies(test.labels)[7]
    assert full > 0.95


def test_a_good_joint_head_is_kept():
    widths = (5, 3)
    train, validation = samples(600, widths, 1), samples(600, widths, 2)
    best = fit_softmax(np.hstack(train.features), np.eye(CLASSES)[train.labels])
    noise = HeadSamples([np.zeros_like(part) for part in train.features], train.labels, train.teacher_logits)
    head = fit_heads(noise, validation, best)  # nothing can be learned from silent features
    assert np.array_equal(head.heads[3].weights, best[0])


def test_above_eight_students_there_is_one_head_and_a_mean():
    widths = (2,) * 9
    train, validation = samples(400, widths, 1), samples(200, widths, 2)
    head = fit_heads(train, validation, random_joint(18))
    assert list(head.heads) == [511]
    assert np.allclose(head.mean, np.hstack(train.features).mean(axis=0), atol=1e-5)
    without_one = merge_all(head, validation.features, [510]).accuracies(validation.labels)[510]
    assert without_one > 0.5  # chance is 0.25


def test_fit_softmax_reaches_the_minimum():
    train = samples(800, (6,), 1)
    features, targets = train.features[0], np.eye(CLASSES)[train.labels] * 0.8 + 0.05
    weights, bias = fit_softmax(features, targets)
    gradient = features.T @ (softmax(features @ weights + bias) - targets) / len(features)
    assert np.abs(gradient).max() < 2e-3


def test_fit_softmax_survives_dead_features():
    train = samples(300, (6,), 1)
    features = np.hstack([train.features[0], np.zeros((300, 3), np.float32)])
    weights, bias = fit_softmax(features, np.eye(CLASSES)[train.labels])
    assert np.isfinite(weights).all()
    assert np.isfinite(bias).all()
    accuracy = ((features @ weights + bias).argmax(axis=1) == train.labels).mean()
    assert accuracy > 0.8


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_temperature_undoes_a_scale(scale):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    labels = np.array([rng.choice(3, p=p) for p in softmax(logits)])
    assert calibrated_temperature(logits * scale, labels) == pytest.approx(scale, rel=0.1)
