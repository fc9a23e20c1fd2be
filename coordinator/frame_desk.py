"""Everything between a frame's arrival and its one answer: merger, head, deadline, early answer, counts. Pure.

The clock is an argument of the class because the merge itself is timed; nothing else reads it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coordinator.answer_memory import AnswerMemory
from coordinator.answers import Answerer
from coordinator.deadlines import AdaptiveDeadlines
from coordinator.feature_merger import (
    Contribution,
    FeatureIgnored,
    FeatureMerger,
    FrameAbandoned,
    FrameIgnored,
    FrameKey,
    FrameMerged,
    FrameProgressed,
    MergerEvent,
)
from coordinator.twin_merger import TwinMerger
from edge_agent.protocol.feature_message import FeatureMessage, real_features
from edge_agent.protocol.prediction_message import PredictionMessage
from edge_agent.protocol.switch_schedule import SwitchSchedule
from edge_agent.protocol.topics import FeatureTopic
from edge_agent.protocol.value import value


@value
class Answered:
    """An answer to publish. `early`: from some students, the frame's one answer follows. `again`: given before."""

    prediction: PredictionMessage
    merged: FrameMerged | None
    early: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class DeskPart:
    """What the desk needs of one deployment. `tolerances`: how far each student's replicas may differ."""

    merger: FeatureMerger
    answerer: Answerer
    tolerances: tuple[float, ...]


class FrameDesk:
    """Opens frames, takes features, gives answers: of one deployment, or of two while a site switches."""

    def __init__(
        self,
        part: DeskPart,
        deadlines: AdaptiveDeadlines,
        clock: Callable[[], float],
        early_answer: float | None = None,
    ) -> None:
        self._merger: FeatureMerger | TwinMerger = part.merger
        self._parts = {part.merger.deployment: part}
        self._deadlines = deadlines
        self._clock = clock
        self._early_answer = early_answer
        self._given = AnswerMemory()
        self._early: dict[FrameKey, int] = {}  # open frames with an early answer, and its class
        self.counts: Counter[str] = Counter()

    @property
    def open_frames(self) -> int:
        """Frames in flight."""
        return len(self._merger)

    def oldest_s(self, now: float) -> float:
        """How long the oldest frame in flight has waited; 0 without one."""
        opened_s = self._merger.oldest_opened_s()
        return 0.0 if opened_s is None else now - opened_s

    def deadlines_ms(self) -> dict[str, float]:
        """Present deadline of live frames, by source."""
        return {source: round(1000 * s, 1) for source, s in self._deadlines.by_source().items()}

    @property
    def deployments(self) -> tuple[str, ...]:
        """What may answer now: one deployment, or two during a switch."""
        return tuple(self._parts)

    def add(self, part: DeskPart, schedule: SwitchSchedule) -> None:
        """A second deployment answers what the schedule gives it; again for a new schedule."""
        if isinstance(self._merger, FeatureMerger):
            self._merger = TwinMerger(self._merger, part.merger, schedule)
            self._parts[part.merger.deployment] = part
        self._merger.schedule = schedule

    def settle(self, deployment: str) -> None:
        """One of two deployments answers everything from now on."""
        self._parts = {deployment: self._parts[deployment]}
        self._merger = self._parts[deployment].merger

    def next_deadline(self) -> float | None:
        """When `expire` has something to do."""
        return self._merger.next_deadline()

    def open(self, key: FrameKey, live: bool, absent: frozenset[int], now: float) -> tuple[bool, list[Answered]]:
        """Start a frame: (True, what made room for it); (False, its answer, if it has one) if it was there before."""
        events = self._merger.open_frame(key, now, now + self._deadlines.patience_s(key[0], live), absent)
        if events and any(isinstance(event, FrameIgnored) for event in events):
            self.counts["frames_repeated"] += 1
            given = self._given.find(key)
            return False, [] if given is None else [Answered(given, None, again=True)]
        self.counts["frames_opened"] += 1
        return True, self._answers(events) if events else []

    def close(self, prediction: PredictionMessage, now: float) -> None:
        """A frame of the last session is answered: sent again, it gets this answer and is not merged."""
        self._given.keep(prediction)
        self._merger.withdraw((prediction.source, prediction.frame_id), now)

    def receive(self, topic: FeatureTopic, messages: Sequence[FeatureMessage], now: float) -> list[Answered]:
        """Take one student's features, of one frame or several."""
        events: list[MergerEvent] = []
        for message, real in zip(messages, real_features(messages), strict=True):
            contribution = Contribution(topic.device, real, message.student_us / 1e6, message.agent_us / 1e6, now)
            key = (topic.source, message.frame_id)
            events += self._merger.receive(key, topic.deployment, topic.student, contribution)
        return self._answers(events)

    def expire(self, now: float) -> list[Answered]:
        """Answer every frame whose deadline has come."""
        return self._answers(self._merger.expire(now))

    def shut(self) -> list[Answered]:
        """Answer every open frame: the coordinator stops."""
        return self._answers(self._merger.abandon_all())

    def _answers(self, events: Sequence[MergerEvent]) -> list[Answered]:
        answers: list[Answered] = []
        predictions = self._predictions(events)
        for event in events:
            match event:
                case FrameProgressed():
                    if self._early_answer is not None:
                        answers.extend(self._answer_early(event, self._early_answer))
                case FrameMerged():
                    answers.append(self._answer(event, predictions[event.deployment, event.key]))
                case FrameAbandoned():
                    self.counts[f"frames_abandoned_{event.reason}"] += 1
                    self._early.pop(event.key, None)
                    answers.append(
                        self._counted(self._parts[event.deployment].answerer.abandoned(event, self._clock()), None)
                    )
                case FeatureIgnored():
                    self._ignored(event)
                case FrameIgnored():
                    self.counts["frames_repeated"] += 1
        return answers

    def _predictions(self, events: Sequence[MergerEvent]) -> dict[tuple[str, FrameKey], PredictionMessage]:
        """What all frames of a round that are merged are: those with the same students are classified together."""
        alike: dict[tuple[str, tuple[int, ...]], list[FrameMerged]] = {}
        for event in events:
            if isinstance(event, FrameMerged):
                alike.setdefault((event.deployment, event.missing), []).append(event)
        return {
            (deployment, (prediction.source, prediction.frame_id)): prediction
            for (deployment, _), merged in alike.items()
            for prediction in self._parts[deployment].answerer.answer(merged, self._clock)
        }

    def _answer(self, merged: FrameMerged, prediction: PredictionMessage) -> Answered:
        if not merged.missing:
            self._deadlines.observe(merged.key[0], prediction.latency_ms.total / 1000)
        early_class = self._early.pop(merged.key, None) if self._early else None
        if early_class is not None and early_class != prediction.class_index:
            self.counts["early_answers_corrected"] += 1
        return self._counted(prediction, merged)

    def _answer_early(self, progress: FrameProgressed, threshold: float) -> list[Answered]:
        if progress.key in self._early or len(progress.contributions) < self._merger.quorum:
            return []
        merged = FrameMerged(
            progress.key, progress.opened_s, dict(progress.contributions), progress.missing, progress.deployment
        )
        [prediction] = self._parts[merged.deployment].answerer.answer([merged], self._clock)
        if prediction.class_index is None or prediction.probabilities[prediction.class_index] < threshold:
            return []
        self._early[progress.key] = prediction.class_index
        self.counts["early_answers"] += 1
        return [Answered(prediction, merged, early=True)]

    def _counted(self, prediction: PredictionMessage, merged: FrameMerged | None) -> Answered:
        self.counts[f"frames_{prediction.result}"] += 1
        self._given.keep(prediction)
        return Answered(prediction, merged)

    def _ignored(self, event: FeatureIgnored) -> None:
        self.counts[f"features_{event.reason}"] += 1
        if event.reason == "late":
            self._deadlines.observe(event.key[0], event.delay_s)
        # Each replica may be off by the tolerance of the manifest's self-test, in opposite directions.
        if event.difference is not None and event.difference > 2 * self._tolerance(event.student):
            self.counts["replicas_disagree"] += 1

    def _tolerance(self, student: int) -> float:
        """The widest of what answers now: an event does not say which deployment it was."""
        return max((p.tolerances[student] for p in self._parts.values() if student < len(p.tolerances)), default=0.0)
