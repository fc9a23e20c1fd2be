import importlib

import keras
import numpy as np
import pytest

from edge_agent.console.exit_codes import UserError
from trainer.network_cost import student_cost
from trainer.networks import applications, catalogue
from trainer.student_network import JointPlan, build_joint, extract_student


def trainable(network) -> int:
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


def pixel_scale(shape):
    return (127.5,) * shape[2], (127.5,) * shape[2]


@pytest.mark.parametrize(
    ("name", "millions"),
    [("wrn-16-1", 0.1751), ("wrn-16-2", 0.692), ("wrn-40-4", 8.949), ("vgg11", 9.231), ("vgg13", 9.416),
     ("vgg16", 14.728), ("vgg19", 20.040)],
)  # fmt: skip
def test_sizes_are_those_of_the_literature_to_a_thousandth(name, millions):
    network = catalogue.classifier(name, (32, 32, 3), 10, [0.0] * 3, [1.0] * 3)
    assert trainable(network) == pytest.approx(millions * 1e6, rel=1e-3)


def test_wrn_16_1_with_the_papers_bridge_is_49_9_times_smaller_than_wrn_40_4():
    plan = JointPlan(("wrn-16-1",), (49,), (32, 32, 3), 10, (0.0,) * 3, (1.0,) * 3)
    student = extract_student(build_joint(plan), 0)
    teacher = catalogue.classifier("wrn-40-4", (32, 32, 3), 10, [0.0] * 3, [1.0] * 3)
    assert trainable(teacher) / trainable(student) >= 49.9
    bridge = 64 * 49 + 2 * 49
    assert trainable(student) - bridge == pytest.approx(174_416, rel=1e-3)


@pytest.mark.parametrize("name", ["wrn-16-1", "vgg11", "cnn-8-16", "airbench"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (65, 48, 3)])
def test_every_family_takes_small_and_odd_images(name, shape):
    if name == "airbench" and shape[0] < 16:
        pytest.skip("three pools need 16 pixels")
    flow = catalogue.trunk(name, keras.Input(shape), "", shape[:2], *pixel_scale(shape))
    assert all(side is not None and side >= 1 for side in flow.shape[1:])


@pytest.mark.parametrize("name", ["wrn-17-1", "vgg12", "resnet", "", "cnn-", "cnn-0", "MobileNetV2"])
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(UserError, match=r"wrn-D-K .* vgg19"):
        catalogue.check_name(name)


def test_pixels_are_normalised_inside_the_network():
    network = catalogue.classifier("cnn-4", (8, 8, 1), 2, [100.0], [50.0])
    inner = keras.Model(network.input, network.get_layer("normalise").output)
    pixels = np.array([100.0, 150.0] * 32, np.float32).reshape(1, 8, 8, 1)
    assert np.allclose(np.asarray(inner(pixels)).ravel()[:2], [0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "filters"),
    [
        ("keras:MobileNetV2", (32, 32, 3), 1280),
        ("keras:efficientnetb0", (40, 48, 1), 1280),
        ("keras:VGG16", (32, 32, 3), 512),
    ],
)
def test_any_network_of_keras_applications_is_a_trunk(name, shape, filters):
    flow = catalogue.trunk(name, keras.Input(shape), "", shape[:2], *pixel_scale(shape))
    assert flow.shape[-1] == filters


@pytest.mark.parametrize("module", ["mobilenet_v2", "vgg16", "densenet", "efficientnet"])
def test_keras_applications_get_the_pixels_that_they_were_trained_on(module):
    module = importlib.import_module(f"keras.applications.{module}")
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    kernel, bias = applications.preprocessing(module, 3)
    np.testing.assert_allclose(images @ kernel + bias, module.preprocess_input(images.copy()), rtol=1e-4, atol=1e-4)
    grey = images[..., :1]
    kernel, bias = applications.preprocessing(module, 1)
    expected = module.preprocess_input(np.repeat(grey, 3, axis=-1))
    np.testing.assert_allclose(grey @ kernel + bias, expected, rtol=1e-4, atol=1e-4)


def test_students_of_keras_applications_share_nothing_and_are_costed():
    plan = JointPlan(("keras:MobileNetV2",) * 2, (5, 5), (32, 32, 3), 10, (0.0,) * 3, (1.0,) * 3)
    joint = build_joint(plan)
    first, second = ({id(weight) for weight in extract_student(joint, index).weights} for index in range(2))
    assert first
    assert not first & second
    cost = student_cost("keras:MobileNetV2", (32, 32, 3), 5)
    assert cost.parameters == extract_student(joint, 0).count_params()
    assert cost.macs > 5e6


@pytest.mark.parametrize("name", ["keras:MobileNet9", "keras:", "keras:MobileNetV2:jft"])
def test_an_unknown_keras_application_is_answered_with_the_known_ones(name):
    with pytest.raises(UserError, match=r"MobileNetV2, .*Xception|expected imagenet"):
        catalogue.check_name(name)


def test_images_too_small_for_a_keras_application_are_one_clear_error():
    with pytest.raises(UserError, match=r"keras:Xception: .*71"):
        catalogue.classifier("keras:Xception", (32, 32, 3), 10, [0.0] * 3, [1.0] * 3)


def test_weights_that_cannot_be_downloaded_are_one_clear_error(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot be downloaded .*to train from scratch"):
        catalogue.classifier("keras:NASNetMobile:imagenet", (224, 224, 3), 10, [0.0] * 3, [1.0] * 3)
