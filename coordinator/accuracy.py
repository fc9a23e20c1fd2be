"""Accuracy of labelled sources: who sends frames of known class says so on `label/<source>`."""

from collections import Counter, OrderedDict
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from coordinator.extension import CoordinatorExtension
from coordinator.feature_merger import FrameMerged
from edge_agent.protocol.frame_message import MAX_FRAME_ID
from edge_agent.protocol.json_message import VERSION, decode_json
from edge_agent.protocol.link import Message
from edge_agent.protocol.prediction_message import PredictionMessage
from edge_agent.protocol.topics import SiteTopics

MAX_LABELS = 4096  # labels that wait for their answer
MAX_SOURCES = 256


class FrameLabel(BaseModel):
    """The true class of a frame: `label/<source>`, sent before the frame. docs/dashboard.md, section Accuracy."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    v: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    frame_id: int = Field(ge=0, le=MAX_FRAME_ID)
    class_name: str = Field(max_length=200)

    def encode(self) -> bytes:
        """UTF-8 JSON."""
        return self.model_dump_json().encode()


class LabelBook(CoordinatorExtension):
    """Compares answers with labels, source by source."""

    def __init__(self, topics: SiteTopics) -> None:
        self._topics = topics
        self._waiting: OrderedDict[tuple[str, int], str] = OrderedDict()
        self.labelled: Counter[str] = Counter()
        self.correct: Counter[str] = Counter()

    def subscriptions(self) -> Sequence[tuple[str, int]]:
        """Labels of all sources."""
        return ((f"{self._topics.root}/label/+", 0),)

    def receive(self, message: Message) -> bool:
        """Remember a label until its frame is answered."""
        if message.retain or not message.topic.startswith(f"{self._topics.root}/label/"):
            return False
        source, _ = self._topics.parse_leaf(message.topic, "label")
        label = decode_json(FrameLabel, message.payload)
        self._waiting[(source, label.frame_id)] = label.class_name
        if len(self._waiting) > MAX_LABELS:
            self._waiting.popitem(last=False)
        return True

    def on_prediction(self, prediction: PredictionMessage, merged: FrameMerged | None, now: float) -> None:  # noqa: ARG002
        """Right or wrong; an abandoned frame counts as wrong."""
        truth = self._waiting.pop((prediction.source, prediction.frame_id), None)
        if truth is None or (prediction.source not in self.labelled and len(self.labelled) >= MAX_SOURCES):
            return
        self.labelled[prediction.source] += 1
        self.correct[prediction.source] += prediction.class_name == truth

    def score(self, source: str) -> tuple[int, int]:
        """Labelled and correct answers of a source."""
        return self.labelled[source], self.correct[source]
