"""K independent students as ONE network, joined by the FC head. The paper, section 3.2, step 5."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainer.networks import catalogue
from trainer.networks.layers import batch_norm, convolution, relu


@dataclass(frozen=True)
class JointPlan:
    """What fixes the joint network: networks and widths per student, images, classes, pixel statistics."""

    networks: tuple[str, ...]
    widths: tuple[int, ...]
    image_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def pixel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel over training images (n, height, width, channels), uint8.

    >>> pixel_statistics(np.array([[[[0], [2]]]], np.uint8))
    ((1.0,), (1.0,))
    """
    sample = images[:: max(1, len(images) // 10_000)]
    axes = (0, 1, 2)
    mean, deviation = sample.mean(axes, dtype=np.float64), sample.std(axes, dtype=np.float64)
    return tuple(mean.tolist()), tuple(np.maximum(deviation, 1.0).tolist())


def build_joint(plan: JointPlan, any_size: bool = False) -> Any:
    """Raw pixels -> [logits, features of student 0, 1, ...], all float32; no weight is shared between students."""
    height, width, channels = plan.image_shape
    shape = (None, None, channels) if any_size else plan.image_shape
    pixels = keras.Input(shape, name="pixels")
    features = [_student(plan, index, pixels, (height, width)) for index in range(len(plan.networks))]
    joined = keras.layers.Concatenate(name="joined", dtype="float32")(features) if len(features) > 1 else features[0]
    logits = keras.layers.Dense(plan.classes, name="head", dtype="float32")(joined)
    return keras.Model(pixels, [logits, *features], name="joint")


def extract_student(joint: Any, index: int) -> Any:
    """Student `index` alone: raw pixels -> features (batch, width); its weights are the joint network's."""
    return keras.Model(joint.input, joint.get_layer(f"student{index}_features").output, name=f"student{index}")


def head_weights(joint: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (all widths, classes) and bias (classes,) of the FC head, float32."""
    weights, bias = joint.get_layer("head").get_weights()
    return weights, bias


def _student(plan: JointPlan, index: int, pixels: Any, size: tuple[int, int]) -> Any:
    prefix = f"student{index}_"
    flow = catalogue.trunk(plan.networks[index], pixels, prefix, size, plan.mean, plan.deviation)
    # The bridge: one feature per filter of the partition, non-negative like the activities it imitates.
    flow = relu(
        batch_norm(convolution(flow, plan.widths[index], 1, name=f"{prefix}bridge"), f"{prefix}bridge_bn"),
        f"{prefix}bridge_out",
    )
    return keras.layers.GlobalAveragePooling2D(name=f"{prefix}features", dtype="float32")(flow)
