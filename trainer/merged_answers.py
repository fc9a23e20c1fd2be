"""What the coordinator will answer: a deployment's students and head, run offline on the same artifacts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.manifest import Artifact, Codec, Student
from edge_agent.protocol.quantization import dequantize, quantize
from trainer.feature_budget import through_codec
from trainer.litert_batches import StudentFeatures

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class MergedAnswers:
    """probabilities[mask]: (images, classes), float32, for each subset `mask` of present students."""

    probabilities: dict[int, FloatArray]

    def accuracies(self, labels: NDArray[np.int64]) -> dict[int, float]:
        """Share of right answers by mask."""
        return {mask: float(np.mean(p.argmax(axis=1) == labels)) for mask, p in self.probabilities.items()}


def over_the_wire(raw: StudentFeatures, codec: Codec) -> FloatArray:
    """Features as the coordinator sees them, encoded and back. raw.values: (n, width) -> (n, width), float32."""
    real = raw.real()
    if codec.channel_ranges is not None:
        return through_codec(real, codec)
    if raw.quantization is not None or codec.encoding == "float32":
        return real
    return dequantize(quantize(real, codec.scale, codec.zero_point), codec.scale, codec.zero_point)


def merge_all(head: MergeHead, features: Sequence[FloatArray], masks: Sequence[int]) -> MergedAnswers:
    """Answer every image with the protocol's own merge. features: (n, width) per student."""
    answers: dict[int, FloatArray] = {}
    for mask in masks:
        present = [student for student in range(len(features)) if mask >> student & 1]
        rows = []
        for image in range(len(features[0])):
            logits, temperature = head.merge({student: features[student][image] for student in present})
            rows.append(probabilities(logits, temperature))
        answers[mask] = np.stack(rows)
    return MergedAnswers(answers)


def artifact_of(student: Student, precision: str) -> Artifact:
    """Return the student's TFLite artifact of that precision."""
    return next(a for a in student.artifacts if a.engine == "tflite" and a.precision == precision)
