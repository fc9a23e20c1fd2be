"""The last answers of each source: a frame that is sent again gets the same one again. Pure.

An answer can die with the broker that had acknowledged it. Its source, which waits, sends the frame again.
"""

from collections import OrderedDict

from coordinator.feature_merger import FrameKey
from edge_agent.protocol.prediction_message import PredictionMessage

# Frames of one source whose answers may be lost at once: 8 s at 30 frames/s, longer than a broker needs to start again.
KEPT_ANSWERS = 256
KEPT_SOURCES = 64
KEPT_SCORES = 2**18  # probabilities of all of them together, about 8 MB: counts where there are a thousand classes


class AnswerMemory:
    """Bounded in every direction; the source that was answered longest ago makes room first."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, OrderedDict[int, PredictionMessage]] = OrderedDict()
        self._scores = 0

    def keep(self, prediction: PredictionMessage) -> None:
        """Remember an answer that goes out."""
        source = prediction.source
        answers = self._sources.get(source)
        if answers is None:
            answers = self._sources[source] = OrderedDict()
        self._sources.move_to_end(source)
        replaced = answers.pop(prediction.frame_id, None)  # an id that came back after it was long forgotten
        answers[prediction.frame_id] = prediction
        self._scores += len(prediction.probabilities) - (len(replaced.probabilities) if replaced else 0)
        if len(answers) > KEPT_ANSWERS:
            self._forget(answers)
        while len(self._sources) > KEPT_SOURCES or self._scores > KEPT_SCORES:
            oldest, longest_ago = next(iter(self._sources.items()))
            self._forget(longest_ago)
            if not longest_ago:
                del self._sources[oldest]

    def find(self, key: FrameKey) -> PredictionMessage | None:
        """The answer of a frame, if it is still known."""
        answers = self._sources.get(key[0])
        return answers.get(key[1]) if answers is not None else None

    def _forget(self, answers: OrderedDict[int, PredictionMessage]) -> None:
        _, prediction = answers.popitem(last=False)
        self._scores -= len(prediction.probabilities)
