import numpy as np
import pytest
import tensorflow as tf

from trainer.distillation import draw_present, partition_energies
from trainer.losses import imitation_loss, label_loss, one_cycle, transfer_loss

RNG = np.random.default_rng(0)


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def test_label_loss_is_the_cross_entropy():
    logits, labels = RNG.normal(size=(4, 3)).astype(np.float32), np.array([0, 2, 1, 1])
    expected = -log_softmax(logits)[np.arange(4), labels].mean()
    assert float(label_loss(labels, logits)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_imitation_loss_is_the_scaled_divergence(temperature):
    teacher, student = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    p, q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    expected = temperature**2 * (np.exp(p) * (p - q)).sum(axis=1).mean()
    assert float(imitation_loss(teacher, student, temperature)) == pytest.approx(expected, rel=1e-4)
    assert float(imitation_loss(teacher, teacher, temperature)) == pytest.approx(0, abs=1e-6)


def test_transfer_loss_compares_each_student_with_its_own_filters():
    activities = tf.constant([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    right = [tf.constant([[1.0, 2.0], [0.0, 0.0]]), tf.constant([[0.0], [3.0]])]
    partitions = [[0, 2], [1]]
    energies = partition_energies(activities.numpy(), partitions)
    assert energies.tolist() == [2.5, 4.5]
    assert float(transfer_loss(activities, right, partitions, energies)) == pytest.approx(0, abs=1e-6)
    silent = [tf.zeros((2, 2)), right[1]]  # the first student misses all of its energy: 1, mean over students 1/2
    assert float(transfer_loss(activities, silent, partitions, energies)) == pytest.approx(0.5, rel=1e-4)


def test_one_cycle_rises_and_ends_at_zero():
    rates = [one_cycle(step, 100, 0.2) for step in range(101)]
    assert max(rates) == pytest.approx(0.2)
    assert rates[0] == pytest.approx(0.02)
    assert rates[100] == pytest.approx(0)
    assert np.argmax(rates) == 20


def test_failout_drops_whole_students_at_its_rate_but_never_all():
    present = draw_present(np.random.default_rng(0), 20_000, 3, 0.3)
    assert set(np.unique(present)) == {0.0, 1.0}
    assert present.any(axis=1).all()
    # 0.3 less the third of 0.3^3 that is given back
    assert 1 - present.mean() == pytest.approx(0.3 - 0.027 / 3, abs=0.01)
    assert draw_present(np.random.default_rng(0), 50, 2, 0.0).all()
