"""Looks over the coordinator's shoulder: keeps the last picture of each source, hands over snapshots.

Runs in the live loop, so it only stores references: pictures, answers without a student and JSON are made by the web
server's thread, from what `Snapshot` holds.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coordinator.accuracy import LabelBook
from coordinator.extension import CoordinatorExtension
from coordinator.feature_merger import FrameMerged
from coordinator.roster import Roster
from coordinator.source_names import is_passing
from coordinator.update_view import UpdateView, decode_update_view
from coordinator.web.snapshot import Sighting, Snapshot, SourceSnapshot
from edge_agent.protocol.frame_message import FrameMessage
from edge_agent.protocol.link import Message
from edge_agent.protocol.prediction_message import PredictionMessage
from edge_agent.protocol.topics import SiteTopics
from edge_agent.protocol.update_messages import RolloutStatus, decode_update

SNAPSHOT_S = 0.1  # no eye follows more than ten pictures a second
IDLE_SNAPSHOT_S = 1.0  # while nobody looks
MAX_SOURCES = 64  # a page with more cards helps nobody; the longest silent one makes room
MAX_UPDATES = 1024
KEPT_ANSWERS = 2048  # of one source: the rates of ten seconds at 200 frames/s
CANDIDATE_PATIENCE_S = 5.0
PASSING_S = 60.0
# Clocks of source and coordinator that differ by more than this tell nothing about the way between them.
BELIEVABLE_CAPTURE_MS = (0.0, 10_000.0)


@dataclass(slots=True)
class _Source:
    candidate: FrameMessage | None = None
    candidate_since_s: float = 0.0
    candidate_capture_ms: float | None = None
    next_picture_s: float = 0.0
    last: Sighting | None = None
    seen_s: float = 0.0
    last_s: float = 0.0
    answers: deque[tuple[float, str, float]] = field(default_factory=lambda: deque(maxlen=KEPT_ANSWERS))


class LiveFeed(CoordinatorExtension):
    """`offer` gets each snapshot; `watched` says whether anybody looks."""

    def __init__(
        self,
        topics: SiteTopics,
        roster: Roster,
        labels: LabelBook,
        offer: Callable[[Snapshot], None],
        watched: Callable[[], bool],
        connected: Callable[[], bool],
        deployment: str,
        rollout_topic: str,
    ) -> None:
        self._topics, self._roster, self._labels = topics, roster, labels
        self._offer, self._watched, self._connected = offer, watched, connected
        self._deployment = deployment
        self._rollout_topic = rollout_topic
        self._rollout: RolloutStatus | None = None
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._updates: dict[str, UpdateView] = {}
        self._next_snapshot_s = 0.0
        self._serial = 0

    def subscriptions(self) -> Sequence[tuple[str, int]]:
        """Update states; the coordinator itself listens to the rest."""
        return ((self._topics.node("+", "update"), 1), (self._rollout_topic, 1))

    def receive(self, message: Message) -> bool:
        """Update states of devices, which others want too, and the coordinator's own rollout."""
        if message.topic == self._rollout_topic:
            self._rollout = decode_update(RolloutStatus, message.payload) if message.payload else None
            if self._rollout is not None and self._rollout.phase in ("idle", "complete", "failed"):
                self._deployment = self._rollout.active  # also of a site that has no frames just now
            return True
        if not message.topic.endswith("/update"):
            return False
        device, leaf = self._topics.parse_leaf(message.topic, "node")
        if leaf == "update" and not message.payload:
            self._updates.pop(device, None)
        elif leaf == "update" and (device in self._updates or len(self._updates) < MAX_UPDATES):
            self._updates[device] = decode_update_view(message.payload)
        return False

    def on_frame(self, source: str, frame: FrameMessage, now: float) -> None:
        """Choose at most one frame in a tenth of a second to be shown, once it is answered."""
        entry = self._sources.get(source)
        if entry is None:
            entry = self._admit(source)
        entry.seen_s = now
        free = entry.candidate is None or now - entry.candidate_since_s > CANDIDATE_PATIENCE_S
        if free and now >= entry.next_picture_s:
            entry.candidate, entry.candidate_since_s = frame, now
            capture_ms = time.time() * 1000 - frame.captured_at_us / 1000
            believable = BELIEVABLE_CAPTURE_MS[0] <= capture_ms <= BELIEVABLE_CAPTURE_MS[1]
            entry.candidate_capture_ms = capture_ms if believable else None

    def on_prediction(self, prediction: PredictionMessage, merged: FrameMerged | None, now: float) -> None:
        """Count the answer; show it if its frame was chosen."""
        self._deployment = prediction.deployment
        entry = self._sources.get(prediction.source)
        if entry is None:
            return
        entry.answers.append((now, prediction.result, prediction.latency_ms.total))
        frame = entry.candidate
        if frame is not None and frame.frame_id == prediction.frame_id:
            contributions = merged.contributions if merged else {}
            opened_s = merged.opened_s if merged else now
            capture_ms = entry.candidate_capture_ms
            entry.last = Sighting(prediction, frame.image, capture_ms, opened_s, contributions)
            entry.last_s = now
            entry.candidate, entry.next_picture_s = None, now + SNAPSHOT_S
            self._sources.move_to_end(prediction.source)

    def tick(self, now: float) -> None:
        """Hand over a snapshot when one is due."""
        if now >= self._next_snapshot_s:
            self._next_snapshot_s = now + (SNAPSHOT_S if self._watched() else IDLE_SNAPSHOT_S)
            self._offer(self._snapshot(now))

    def _snapshot(self, now: float) -> Snapshot:
        self._serial += 1
        self._forget_passing(now)
        return Snapshot(
            self._serial,
            now,
            self._connected(),
            self._deployment,
            tuple(self._source(name, entry, now) for name, entry in sorted(self._sources.items())),
            tuple(self._roster.devices),
            self._updates.copy(),
            self._rollout,
        )

    def _source(self, name: str, entry: _Source, now: float) -> SourceSnapshot:
        return SourceSnapshot(name, entry.last, now - entry.last_s, tuple(entry.answers), *self._labels.score(name))

    def _forget_passing(self, now: float) -> None:
        """Sources of one command call go when they are silent; cameras stay, and are shown as silent."""
        for name in [n for n, entry in self._sources.items() if is_passing(n) and now - entry.seen_s > PASSING_S]:
            del self._sources[name]

    def _admit(self, source: str) -> _Source:
        if len(self._sources) >= MAX_SOURCES:
            self._sources.popitem(last=False)
        self._sources[source] = entry = _Source()
        return entry
