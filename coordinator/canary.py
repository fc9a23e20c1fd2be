"""Compares a deployment that runs in shadow on some devices with the one that answers. Pure.

Both are judged on the canaries' students alone, each through its own head of that subset: like with like, however few
of the students the canaries are.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.head import MergeHead
from edge_agent.protocol.update_messages import CanaryReport

OPEN_FRAMES = 512  # frames that wait for their other half: half a minute of two sources at 8 frames/s
TIMES = 4096

Features = NDArray[np.float32]


@dataclass(frozen=True)
class ComparedHead:
    """One side of the comparison."""

    deployment: str
    classes: tuple[str, ...]
    head: MergeHead

    def class_of(self, features: dict[int, Features]) -> str:
        """Class name by these students alone."""
        logits, _ = self.head.merge(features)
        return self.classes[int(np.argmax(logits))]


class CanaryComparison:
    """Feed every feature message of the canaries; `report` sums up the frames that both sides have."""

    def __init__(self, old: ComparedHead, new: ComparedHead, canaries: dict[str, tuple[int, ...]]) -> None:
        self._sides = {old.deployment: old, new.deployment: new}
        self._old, self._new = old, new
        self._canaries = canaries
        self._students = {student for students in canaries.values() for student in students}
        self._frames: OrderedDict[tuple[str, int], dict[str, dict[int, Features]]] = OrderedDict()
        self._times_us: dict[str, deque[int]] = {side: deque(maxlen=TIMES) for side in self._sides}
        self._compared = self._agreed = 0

    def receive(
        self,
        device: str,
        deployment: str,
        source: str,
        frame_id: int,
        student: int,
        features: Features,
        student_us: int,
    ) -> None:
        """Features of one student. features: (width,), float32."""
        side = self._sides.get(deployment)
        if side is None or student not in self._canaries.get(device, ()) or student >= len(side.head.widths):
            return
        if features.shape != (side.head.widths[student],):
            return
        sides = self._frames.setdefault((source, frame_id), {name: {} for name in self._sides})
        sides[deployment].setdefault(student, features)
        self._times_us[deployment].append(student_us)
        if all(set(found) == self._students for found in sides.values()):
            del self._frames[source, frame_id]
            self._compared += 1
            old, new = (side.class_of(sides[side.deployment]) for side in (self._old, self._new))
            self._agreed += old == new
        elif len(self._frames) > OPEN_FRAMES:
            self._frames.popitem(last=False)

    def report(self) -> CanaryReport:
        """What was found so far."""
        if not self._compared:
            return CanaryReport()
        old_ms, new_ms = (
            float(np.percentile(self._times_us[side.deployment], 95)) / 1000 for side in (self._old, self._new)
        )
        return CanaryReport(
            frames=self._compared,
            agreement=self._agreed / self._compared,
            latency_ratio=new_ms / max(old_ms, 1e-3),
            old_ms_p95=old_ms,
            new_ms_p95=new_ms,
        )
