"""What every export must show on the validation split before it may be called one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.head import MergeHead

# Most points of accuracy that a file may lose against Keras. WRN-16-1 on CIFAR-10 loses 0.00, 0.00, 0.02 and 0.1.
MAX_POINTS_LOST = {"float32": 0.5, "float16": 0.5, "dynamic": 2.0, "int8": 4.0}
# A handful of images is no proof where the validation split is small.
MAX_IMAGES_LOST = 3


@dataclass(frozen=True)
class ExportAccuracy:
    """All students of one engine and precision, through the deployment's head. `accuracy`: share of right answers."""

    engine: str
    precision: str
    accuracy: float
    size_bytes: int  # of all students together


def head_accuracy(head: MergeHead, features: Sequence[NDArray[np.float32]], labels: NDArray[np.int64]) -> float:
    """Share of right answers when all students are present. features: (images, width) per student."""
    full = head.heads[head.full_mask]
    logits = np.concatenate(features, axis=1) @ full.weights + full.bias
    return float(np.mean(logits.argmax(axis=1) == labels))


def check_accuracies(found: Sequence[ExportAccuracy], keras_accuracy: float, images: int) -> None:
    """UserError (exit code 1) for the first export that loses more than its precision explains.

    >>> check_accuracies([ExportAccuracy("tflite", "int8", 0.90, 1)], 0.91, images=5000)
    """
    for export in found:
        allowed = max(MAX_POINTS_LOST[export.precision], 100 * MAX_IMAGES_LOST / images)
        lost = 100 * (keras_accuracy - export.accuracy)
        if not lost <= allowed:
            raise UserError(
                f"{export.engine} {export.precision}: {export.accuracy:.2%} on validation where Keras has "
                f"{keras_accuracy:.2%}: {lost:.2f} points lost, allowed are {allowed:.2f}; not exported",
                ExitCode.FAILED,
            )


def accuracy_table(found: Sequence[ExportAccuracy], keras_accuracy: float, errors: Mapping[str, float]) -> str:
    """Write a Markdown table. `errors`: relative RMS error of the worst student by `ENGINE PRECISION`."""
    lines = [
        "| export | bytes, all students | relative error | accuracy, validation |",
        "|---|---|---|---|",
        f"| Keras, head of the training | | | {keras_accuracy:.2%} |",
    ]
    lines += [
        f"| {e.engine} {e.precision} | {e.size_bytes:,} | {errors.get(f'{e.engine} {e.precision}', 0):.1e} | "
        f"{e.accuracy:.2%} |"
        for e in found
    ]
    return "\n".join(lines)
