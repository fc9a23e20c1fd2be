"""From a merged frame to the answer that goes out. Pure."""

from collections.abc import Callable, Sequence
from operator import attrgetter

from coordinator.feature_merger import FrameAbandoned, FrameMerged
from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.prediction_message import LatencySplit, PredictionMessage

_arrival = attrgetter("arrived_s")


class Answerer:
    """Knows the head and the class names of one deployment."""

    def __init__(self, coordinator: str, deployment: str, classes: Sequence[str], head: MergeHead) -> None:
        self._coordinator = coordinator
        self._deployment = deployment
        self._classes = tuple(classes)
        self._head = head

    def answer(self, merged: FrameMerged, clock: Callable[[], float]) -> PredictionMessage:
        """Classify a frame by the students that are there. `clock`: seconds, to time the merge itself."""
        started_s = clock()
        features = {student: part.features for student, part in merged.contributions.items()}
        logits, temperature = self._head.merge(features)
        scores = probabilities(logits, temperature)
        best = int(scores.argmax())
        return PredictionMessage(
            frame_id=merged.key[1],
            source=merged.key[0],
            coordinator=self._coordinator,
            deployment=self._deployment,
            result="degraded" if merged.missing else "complete",
            class_index=best,
            class_name=self._classes[best],
            probabilities=tuple(scores.tolist()),
            present=tuple(sorted(features)),
            missing=merged.missing,
            latency_ms=split_latency(merged, started_s, clock()),
        )

    def abandoned(self, frame: FrameAbandoned, now: float) -> PredictionMessage:
        """Say that a frame gets no class, so that its sender does not wait."""
        total_ms = (now - frame.opened_s) * 1000
        return PredictionMessage(
            frame_id=frame.key[1],
            source=frame.key[0],
            coordinator=self._coordinator,
            deployment=self._deployment,
            result="abandoned",
            present=frame.present,
            missing=frame.missing,
            reason=frame.reason,
            latency_ms=LatencySplit(total=total_ms, student=0, queue=0, transport=total_ms, merge=0),
        )


def split_latency(merged: FrameMerged, merge_started_s: float, now: float) -> LatencySplit:
    """Total from the frame's arrival; the last student in decides student and queue; transport is the rest."""
    last = max(merged.contributions.values(), key=_arrival)
    total = now - merged.opened_s
    merge = now - merge_started_s
    before = total - merge
    student = min(last.student_s, before)
    queue = min(max(0.0, last.agent_s - last.student_s), before - student)
    transport = max(0.0, before - student - queue)
    return LatencySplit(
        total=total * 1000, student=student * 1000, queue=queue * 1000, transport=transport * 1000, merge=merge * 1000
    )
