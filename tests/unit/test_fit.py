"""Costs against published figures and against real TFLite files; limits, refusals and suggestions."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.console.exit_codes import UserError
from trainer.device_profiles import PROFILES, device_profile
from trainer.fit import check_fit, estimate
from trainer.fit_limits import LIMITS, parse_limits, with_unit
from trainer.network_cost import PRECISIONS, NetworkCost, network_cost, student_cost

CIFAR = (32, 32, 3)


def classifier_macs(name: str) -> tuple[int, int]:
    from trainer.networks.catalogue import classifier

    cost = network_cost(classifier(name, CIFAR, 10, (0, 0, 0), (1, 1, 1)))
    return cost.macs, cost.parameters


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [
        ("wrn-16-1", 26.7e6, 0.175e6),
        ("wrn-16-2", 101.1e6, 0.692e6),
        ("wrn-40-4", 1298.6e6, 8.95e6),
        ("vgg11", 152.8e6, 9.23e6),
        ("vgg19", 398.1e6, 20.04e6),
    ],
)
def test_macs_and_parameters_are_those_of_the_literature(name: str, macs: float, parameters: float) -> None:
    counted, weights = classifier_macs(name)
    assert counted == pytest.approx(macs, rel=0.002)
    # Published counts leave out BN's moving statistics, Keras counts them: up to 1 % for thin networks.
    assert weights == pytest.approx(parameters, rel=0.012)


def test_macs_of_single_layers_are_the_textbook_products() -> None:
    import keras

    layers = keras.layers
    pixels = keras.Input((8, 6, 4))
    cases = [
        (layers.Conv2D(10, 3, padding="same")(pixels), 8 * 6 * 9 * 4 * 10),
        (layers.Conv2D(10, 3, strides=2, padding="valid")(pixels), 3 * 2 * 9 * 4 * 10),
        (layers.Conv2D(8, 3, padding="same", groups=2)(pixels), 8 * 6 * 9 * 2 * 8),
        (layers.DepthwiseConv2D(3, padding="same")(pixels), 8 * 6 * 9 * 4),
        (layers.SeparableConv2D(10, 3, padding="same")(pixels), 8 * 6 * (9 * 4 + 4 * 10)),
        (layers.Conv2DTranspose(5, 3, strides=2, padding="same")(pixels), 8 * 6 * 9 * 4 * 5),
        (layers.Dense(7)(layers.Flatten()(pixels)), 8 * 6 * 4 * 7),
        (layers.BatchNormalization()(layers.MaxPooling2D()(pixels)), 0),
    ]
    for output, expected in cases:
        assert network_cost(keras.Model(pixels, output)).macs == expected


def test_nested_sequential_and_shared_layers_count_like_flat_ones() -> None:
    import keras

    shared = keras.layers.Conv2D(4, 3, padding="same")
    block = keras.Sequential([keras.Input((8, 8, 4)), shared, keras.layers.ReLU()])
    pixels = keras.Input((8, 8, 4))
    twice = network_cost(keras.Model(pixels, block(block(pixels))))
    once = network_cost(keras.Model(pixels, block(pixels)))
    assert twice.macs == 2 * once.macs == 2 * 64 * 9 * 16
    assert twice.parameters == once.parameters
    assert twice.artifact_bytes["float32"] < 1.5 * once.artifact_bytes["float32"]


def test_what_cannot_be_costed_is_refused() -> None:
    import keras

    with pytest.raises(UserError, match="open shape"):
        network_cost(keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(4, 3)]))
    with pytest.raises(UserError, match="cannot be counted"):
        network_cost(keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4)]))
    with pytest.raises(UserError, match="neither functional nor sequential"):
        network_cost(object())


def tflite_arena_bytes(content: bytes) -> int:
    """Span of memory that the built-in kernels' tensors occupy, from their addresses."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    file_start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    spans = []
    for details in interpreter.get_tensor_details():
        try:
            view = interpreter.tensor(details["index"])()
        except ValueError:  # a tensor that no kernel needs
            continue
        address = view.__array_interface__["data"][0]
        # Weights are read where the file lies.
        if not file_start <= address < file_start + len(content):
            spans.append((address, address + view.nbytes))
    # What kernels keep between runs lies elsewhere: the arena is the stretch round the input without a wide gap.
    stretches: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if stretches and start <= stretches[-1][1] + 16_384:
            stretches[-1] = (stretches[-1][0], max(end, stretches[-1][1]))
        else:
            stretches.append((start, end))
    pixels = interpreter.tensor(interpreter.get_input_details()[0]["index"])().__array_interface__["data"][0]
    return next(end - start for start, end in stretches if start <= pixels < end)


def convert(network, precision: str) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if precision == "int8":
        shape = network.input_shape[1:]
        random = np.random.default_rng(0)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [random.random((1, *shape), dtype=np.float32) * 255] for _ in range(4)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.int8
    return converter.convert()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize(("name", "size"), [("wrn-10-1", 16), ("cnn-16-24", 12)])
def test_estimates_are_those_of_the_real_file(name: str, size: int, precision: str) -> None:
    import keras

    from trainer.networks.catalogue import trunk

    pixels = keras.Input((size, size, 3), batch_size=1)
    flow = trunk(name, pixels, "", (size, size), (0.0,) * 3, (255.0,) * 3)
    network = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(flow))
    cost = network_cost(network)
    content = convert(network, precision)
    assert cost.artifact_bytes[precision] == pytest.approx(len(content), rel=0.02, abs=1000)
    assert cost.arena_bytes[precision] == pytest.approx(tflite_arena_bytes(content), rel=0.05)


def test_the_papers_example_fits_a_pi_3b_plus_as_int8_only() -> None:
    limits = parse_limits("memory=500KB,macs=30M,power=2W")
    report = check_fit("wrn-16-1", student_cost("wrn-16-1", CIFAR, 128), limits, device_profile("pi3b+"))
    assert report.fitting == ("int8",)
    report.require("int8")
    with pytest.raises(UserError, match=r"wrn-16-1 as float32 does not fit Raspberry Pi 3B\+: memory .*exceeds 500 KB"):
        report.require("float32")


def cost_of(parameters: int, macs: int, artifact_bytes: int, arena_bytes: int) -> NetworkCost:
    return NetworkCost(
        parameters, macs, dict.fromkeys(PRECISIONS, artifact_bytes), dict.fromkeys(PRECISIONS, arena_bytes)
    )


LARGE = cost_of(700_000, 100_000_000, 800_000, 100_000)
SMALL = cost_of(170_000, 20_000_000, 200_000, 50_000)
TINY = cost_of(17_000, 2_000_000, 20_000, 5_000)


def test_a_refusal_names_the_largest_network_that_fits() -> None:
    report = check_fit(
        "large", LARGE, parse_limits("memory=500KB"), PROFILES["pi4"], {"large": LARGE, "small": SMALL, "tiny": TINY}
    )
    with pytest.raises(
        UserError, match=r"900 KB \(estimated\) exceeds 500 KB; what fits: small as int8 \(20 M MACs\)$"
    ):
        report.require("int8")


def test_a_power_limit_suggests_a_rate_that_keeps_it() -> None:
    device = PROFILES["pi3b+"]
    limits = parse_limits("power=2W,rate=60/s")
    report = check_fit("large", LARGE, limits, device)
    suggested = next(s for s in report.suggestions if "images/s" in s)
    rate = float(re.search(r"at ([\d.]+) images/s", suggested)[1])
    assert check_fit("large", LARGE, limits | {"rate": rate}, device).fitting
    assert check_fit("large", LARGE, limits | {"rate": rate * 1.02}, device).broken["int8"] != ()


def test_a_power_limit_below_idle_says_that_no_student_can_help() -> None:
    report = check_fit("tiny", TINY, parse_limits("power=500mW"), PROFILES["pi-zero-2w"], {"small": SMALL})
    assert report.suggestions == ("a power limit above the 0.6 W that Raspberry Pi Zero 2 W draws when idle",)


def test_a_rate_that_the_board_cannot_keep_is_refused() -> None:
    report = check_fit("large", LARGE, parse_limits("rate=1000fps"), PROFILES["pi3b+"])
    assert "fewer than 1000" in report.broken["int8"][0]
    assert report.fitting == ()


def test_every_limit_is_held_just_at_its_edge() -> None:
    device = PROFILES["pi4"]
    e = estimate("small", SMALL, "int8", device)
    for key in LIMITS:
        if key != "rate":
            assert check_fit("small", SMALL, {key: e.value(key)}, device).broken["int8"] == ()
            assert check_fit("small", SMALL, {key: e.value(key) * 0.999}, device).broken["int8"] != ()


def test_energy_and_power_follow_from_latency() -> None:
    device = PROFILES["pi3b+"]
    e = estimate("small", SMALL, "float32", device, rate=10)
    assert e.latency_s == pytest.approx(20e6 / (0.3e9 / 0.079))
    assert e.energy_j == pytest.approx(5.1 * e.latency_s)
    assert e.power_w == pytest.approx(1.9 + 10 * e.latency_s * 3.2)
    assert estimate("small", SMALL, "int8", device).latency_s < e.latency_s


def test_json_marks_what_is_estimated() -> None:
    content = check_fit("small", SMALL, parse_limits("memory=500KB"), PROFILES["pi5"]).to_dict()
    row = content["precisions"][0]
    assert set(row["estimated"]) == {"artifact_bytes", "arena_bytes", "latency_ms", "energy_mj", "power_w"}
    assert (row["macs"], row["parameters"]) == (20_000_000, 170_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("memory=500KB", {"memory": 500e3}),
        ("memory=512KiB", {"memory": 524288}),
        ("memory=1.5mb, latency=50ms", {"memory": 1.5e6, "latency": 0.05}),
        ("energy=0.1J,rate=5fps,parameters=200K", {"energy": 0.1, "rate": 5, "parameters": 200e3}),
    ],
)
def test_limits_read_as_people_write_them(text: str, expected: dict[str, float]) -> None:
    assert parse_limits(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no limit given"),
        ("memory", "expected KEY=VALUE with memory, artifact"),
        ("ram=5KB", "expected KEY=VALUE"),
        ("memory=lots", "expected memory=500KB"),
        ("memory=500W", "units B, KB"),
        ("memory=-5KB", "no such value"),
        ("macs=0", "no such value"),
        ("macs=1M,macs=2M", "given twice"),
    ],
)
def test_limits_that_make_no_sense_are_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_limits(text)


def test_profiles_are_plausible_and_say_their_sources() -> None:
    for name, profile in PROFILES.items():
        assert profile.name == name
        assert profile.busy_w.value > profile.idle_w.value > 0
        assert profile.int8_macs_per_s.value > profile.float_macs_per_s.value
        rates = (profile.float_macs_per_s, profile.int8_macs_per_s)
        for figure in (profile.memory_bytes, *rates, profile.idle_w, profile.busy_w):
            assert len(figure.source) > 8
            assert math.isfinite(figure.value)
    with pytest.raises(UserError, match=r"expected one of pi3b\+, pi4, pi5, pi-zero-2w"):
        device_profile("pi9")


def test_units_are_the_ones_people_use() -> None:
    assert [with_unit(*pair) for pair in (("memory", 1.5e6), ("parameters", 999), ("energy", 0.0138), ("rate", 5))] == [
        "1.5 MB",
        "0.999 K",
        "13.8 mJ",
        "5 images/s",
    ]


def test_limits_and_profiles_need_no_tensorflow() -> None:
    program = "import sys, trainer.fit, trainer.device_profiles; print({'tensorflow', 'keras'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=root) == "set()\n"
