import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.student_network import JointPlan, build_joint, extract_student, head_weights, pixel_statistics

PLAN = JointPlan(("cnn-4-8", "cnn-6-8", "wrn-10-1"), (5, 7, 4), (8, 8, 1), 3, (120.0,), (60.0,))
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def joint():
    keras.utils.set_random_seed(1)
    return build_joint(PLAN)


def test_no_weight_belongs_to_two_students(joint):
    students = [extract_student(joint, index) for index in range(3)]
    owners = [{id(weight) for weight in student.weights} for student in students]
    assert all(owner for owner in owners)
    assert len(set.union(*owners)) == sum(len(owner) for owner in owners)
    head = {id(weight) for weight in joint.get_layer("head").weights}
    assert set.union(*owners, head) == {id(weight) for weight in joint.weights}


def test_a_students_features_do_not_move_with_anothers_weights(joint):
    first = extract_student(joint, 0)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(joint(PIXELS, training=True)[1] ** 2)
    gradients = tape.gradient(total, joint.trainable_variables)
    own = {id(weight) for weight in first.trainable_weights}
    for weight, gradient in zip(joint.trainable_variables, gradients, strict=True):
        assert (gradient is not None) == (id(weight) in own), weight.path


def test_an_extracted_student_answers_like_the_joint_network(joint):
    _, *features = joint(PIXELS, training=False)
    for index, expected in enumerate(features):
        student = extract_student(joint, index)
        assert expected.shape == (6, PLAN.widths[index])
        assert np.allclose(student(PIXELS, training=False), expected, atol=1e-6)
        assert float(np.min(expected)) >= 0


def test_the_joint_answer_is_the_fc_head_on_the_joined_features(joint):
    logits, *features = joint(PIXELS, training=False)
    weights, bias = head_weights(joint)
    assert np.allclose(np.hstack([np.asarray(part) for part in features]) @ weights + bias, logits, atol=1e-5)


def test_statistics_are_per_channel():
    images = np.stack([np.full((4, 4, 2), (10, 200), np.uint8), np.full((4, 4, 2), (30, 200), np.uint8)])
    mean, deviation = pixel_statistics(images)
    assert mean == (20.0, 200.0)
    assert deviation == (10.0, 1.0)  # a constant channel is not divided by zero
