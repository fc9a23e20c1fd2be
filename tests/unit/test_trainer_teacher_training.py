import keras
import numpy as np
import pytest

from trainer.configuration import RunConfiguration
from trainer.datasets import Split
from trainer.networks import airbench, catalogue
from trainer.student_network import pixel_statistics
from trainer.teacher_model import load_teacher
from trainer.teacher_training import TeacherBatches, TeacherStep, cut_out
from trainer.tflite_conversion import to_tflite

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
# Neighbouring pixels alike, as in photographs, so that there is something to whiten.
SMOOTH = np.cumsum(np.random.default_rng(1).normal(0, 9, (64, 16, 16, 3)), axis=1).clip(-127, 127).astype(int) + 127


def settings(**more) -> RunConfiguration:
    return RunConfiguration(dataset="none", teacher="cnn-8-16", batch=16, crop_pad=0, **more)


def test_cutout_greys_a_square_of_its_size_at_most():
    images = np.zeros((200, 16, 16, 3), np.uint8)
    cut_out(images, 6, np.random.default_rng(0))
    sizes = (images == 127).all(axis=3).sum(axis=(1, 2))
    assert sizes.max() == 36
    assert sizes.min() >= 9  # its centre is always inside the image
    assert set(np.unique(images)) == {0, 127}


def test_two_passes_show_both_sides_of_every_image():
    split = Split(IMAGES, np.arange(64))
    batches = TeacherBatches(split, settings())
    seen = {}
    for step in range(2 * batches.steps_per_pass):
        for image, number in zip(*batches(step), strict=True):
            seen.setdefault(int(number), []).append(image)
    for number, (one, other) in seen.items():
        assert np.array_equal(one, other[:, ::-1])
        assert any(np.array_equal(IMAGES[number], side) for side in (one, other))


def test_smoothing_keeps_the_loss_above_the_entropy_of_its_targets():
    keras.utils.set_random_seed(0)
    network = catalogue.classifier("cnn-8-16", (16, 16, 3), 2, *pixel_statistics(IMAGES))
    labels = (IMAGES[..., 0].mean(axis=(1, 2)) > 127).astype(np.int64)
    step = TeacherStep(network, settings(teacher_smoothing=0.2, teacher_rate=0.05), 40)
    batches = TeacherBatches(Split(IMAGES, labels), settings())
    losses = [float(step(batches(number), number)["loss"]) for number in range(40)]
    floor = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert min(losses) > floor
    assert losses[-1] < losses[0]


def test_the_whitening_layer_whitens_and_convolutions_start_as_identities():
    pixels = SMOOTH.astype(np.uint8)
    keras.utils.set_random_seed(0)
    network = catalogue.classifier("airbench", (16, 16, 3), 10, *pixel_statistics(pixels))
    airbench.prepare(network, pixels)
    inner = keras.Model(network.input, network.get_layer("whitening").output)
    answers = np.asarray(inner(pixels.astype(np.float32)))[:, ::2, ::2].reshape(-1, 24)
    assert np.allclose(answers[:, :12], -answers[:, 12:], atol=1e-3)
    second_moment = answers[:, :12].T @ answers[:, :12] / len(answers)
    assert np.abs(second_moment - np.diag(np.diag(second_moment))).max() < 0.05
    assert np.diag(second_moment)[:6] == pytest.approx(np.ones(6), abs=0.1)
    (weights,) = network.get_layer("g1c1").get_weights()
    assert np.array_equal(weights[1, 1], np.eye(256, dtype=np.float32))
    assert not network.get_layer("whitening").trainable_weights


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with NumPy 2, when it saves
def test_a_teacher_of_mixed_precision_is_read_in_float32_and_converts(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = catalogue.classifier("cnn-8-16-16", (8, 8, 1), 3, [8.0], [4.0])
    finally:
        keras.config.set_dtype_policy("float32")
    network.save(tmp_path / "teacher.keras")
    teacher = load_teacher(tmp_path / "teacher.keras", None, (8, 8, 1))
    pixels = np.random.default_rng(0).integers(0, 17, (20, 8, 8, 1)).astype(np.float32)
    logits = teacher.network(pixels)[1].numpy()
    assert {layer.compute_dtype for layer in teacher.network.layers} == {"float32"}
    assert logits == pytest.approx(network(pixels).numpy(), abs=0.05)
    assert len(to_tflite(teacher.network, (8, 8, 1), "dynamic", None)) > 1000
