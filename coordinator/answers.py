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

    def answer(self, merged: Sequence[FrameMerged], clock: Callable[[], float]) -> list[PredictionMessage]:
        """Classify frames, each with the same students. `clock`: seconds, to time the merge itself."""
        started_s = clock()
        frames = [{student: part.features for student, part in one.contributions.items()} for one in merged]
        logits, temperature = self._head.merge_all(frames)
        scores = probabilities(logits, temperature)
        classes: list[int] = scores.argmax(axis=-1).tolist()
        ended_s = clock()
        present = tuple(sorted(frames[0]))
        return [
            PredictionMessage(
                frame_id=one.key[1],
                source=one.key[0],
                coordinator=self._coordinator,
                deployment=self._deployment,
                result="degraded" if one.missing else "complete",
                class_index=best,
                class_name=self._classes[best],
                probabilities=tuple(score),
                present=present,
                missing=one.missing,
                latency_ms=split_latency(one, started_s, ended_s),
            )
            for one, best, score in zip(merged, classes, scores.tolist(), strict=True)
        ]

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
