"""Keras = TFLite = the NumPy head, on a network with every kind of layer that students have."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.head import MergeHead, SubsetHead, probabilities
from edge_agent.protocol.manifest import Codec
from trainer import artifacts
from trainer.artifacts import export_student, relative_error
from trainer.litert_batches import features_of
from trainer.merged_answers import merge_all, over_the_wire
from trainer.student_network import JointPlan, build_joint, extract_student, head_weights

PLAN = JointPlan(("wrn-10-1", "cnn-6-8"), (6, 5), (16, 16, 3), 4, (120.0, 110.0, 100.0), (60.0, 60.0, 70.0))
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def joint():
    keras.utils.set_random_seed(3)
    network = build_joint(PLAN)
    rng = np.random.default_rng(1)
    for weight in network.weights:  # BN as after training, so that folding it is put to the test
        if "variance" in weight.path:
            weight.assign(rng.uniform(0.5, 2.0, weight.shape))
        elif any(part in weight.path for part in ("gamma", "beta", "moving_mean")):
            weight.assign(np.asarray(weight) + rng.normal(0, 0.1, weight.shape))
    return network


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int8"])
def test_every_precision_answers_like_keras(joint, index, precision, tmp_path):
    student = extract_student(joint, index)
    exported = export_student(student, precision, IMAGES, IMAGES, tmp_path / "student.tflite")
    raw = features_of(exported.path, IMAGES)
    assert raw.values.dtype == (np.int8 if precision == "int8" else np.float32)
    expected = np.asarray(student(IMAGES.astype(np.float32)))
    assert relative_error(raw.real(), expected) <= artifacts.MAX_ERROR[precision]


def test_int8_takes_uint8_pixels_and_tells_its_scale(joint, tmp_path):
    from trainer.litert_batches import open_interpreter

    exported = export_student(extract_student(joint, 0), "int8", IMAGES, IMAGES, tmp_path / "student.tflite")
    interpreter = open_interpreter(exported.path)
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, 16, 16, 3]
    assert exported.feature_step is not None
    assert exported.feature_step > 0


def test_a_wrong_artifact_is_refused_and_not_written(joint, tmp_path, monkeypatch):
    student, other = extract_student(joint, 0), build_joint(PLAN)
    wrong = artifacts.to_tflite(extract_student(other, 0), (16, 16, 3), "float32", None)
    monkeypatch.setattr(artifacts, "to_tflite", lambda *_: wrong)
    with pytest.raises(UserError, match=r"off by .* from Keras") as trouble:
        export_student(student, "float32", IMAGES, IMAGES, tmp_path / "student.tflite")
    assert trouble.value.exit_code == ExitCode.FAILED
    monkeypatch.setattr(artifacts, "to_tflite", lambda *_: wrong[:2000])
    with pytest.raises(UserError, match="2000 bytes, expected at least"):
        export_student(student, "float32", IMAGES, IMAGES, tmp_path / "student.tflite")
    assert list(tmp_path.iterdir()) == []


def test_merged_float32_answers_equal_the_joint_network(joint, tmp_path):
    features = []
    for index in range(2):
        path = export_student(extract_student(joint, index), "float32", IMAGES, IMAGES, tmp_path / f"{index}").path
        features.append(over_the_wire(features_of(path, IMAGES), Codec(encoding="float32")))
    weights, bias = head_weights(joint)
    head = MergeHead((6, 5), 4, {3: SubsetHead(weights, bias, 2.0)}, np.zeros(11, np.float32))
    expected = tf.nn.softmax(joint(IMAGES.astype(np.float32))[0] / 2.0)
    merged = merge_all(head, features, [3]).probabilities[3]
    assert np.allclose(merged, expected, atol=1e-4)
    logits, temperature = head.merge({0: features[0][7], 1: features[1][7]})
    assert np.array_equal(merged[7], probabilities(logits, temperature))


def test_float_features_lose_at_most_half_a_step_on_the_wire(joint, tmp_path):
    path = export_student(extract_student(joint, 0), "float32", IMAGES, IMAGES, tmp_path / "s").path
    raw = features_of(path, IMAGES)
    codec = Codec(encoding="int8", scale=float(raw.values.max()) / 255, zero_point=-128)
    assert np.abs(over_the_wire(raw, codec) - raw.values).max() <= 0.5001 * codec.scale
