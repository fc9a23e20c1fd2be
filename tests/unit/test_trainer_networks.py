import keras
import numpy as np
import pytest

from edge_agent.console.exit_codes import UserError
from trainer.networks import catalogue
from trainer.student_network import JointPlan, build_joint, extract_student


def trainable(network) -> int:
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


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
    flow = catalogue.trunk(name, keras.Input(shape), "", shape[:2])
    assert all(side is not None and side >= 1 for side in flow.shape[1:])


@pytest.mark.parametrize("name", ["wrn-17-1", "vgg12", "resnet", "", "cnn-", "cnn-0"])
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(UserError, match=r"wrn-D-K .* vgg19"):
        catalogue.check_name(name)


def test_pixels_are_normalised_inside_the_network():
    network = catalogue.classifier("cnn-4", (8, 8, 1), 2, [100.0], [50.0])
    inner = keras.Model(network.input, network.get_layer("normalise").output)
    pixels = np.array([100.0, 150.0] * 32, np.float32).reshape(1, 8, 8, 1)
    assert np.allclose(np.asarray(inner(pixels)).ravel()[:2], [0.0, 1.0], atol=1e-6)
