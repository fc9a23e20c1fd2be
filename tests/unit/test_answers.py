"""From merged frames to answers: the right class, honest latency, always readable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.answers import Answerer, split_latency
from coordinator.feature_merger import Contribution, FrameAbandoned, FrameMerged
from edge_agent.protocol.feature_message import MAX_FEATURE
from edge_agent.protocol.head import MergeHead, SubsetHead
from edge_agent.protocol.prediction_message import decode_prediction

D = "0123456789abcdef"
EYE = np.eye(3, dtype=np.float32)
HEAD = MergeHead(
    (2, 1),
    3,
    {
        3: SubsetHead(EYE, np.zeros(3, np.float32), 1.0),
        1: SubsetHead(EYE[:2], np.array([0, 0, 5], np.float32), 1.0),
    },
    np.zeros(3, np.float32),
)
ANSWERER = Answerer("main", D, ("cat", "dog", "eel"), HEAD)


def merged(features: dict[int, list[float]], missing: tuple[int, ...] = ()) -> FrameMerged:
    parts = {
        s: Contribution("pi", np.array(f, np.float32), 0.002, 0.003, 10.004 + s / 1000) for s, f in features.items()
    }
    return FrameMerged(("cam", 7), 10.0, parts, missing)


def test_complete_and_degraded_answers_use_their_own_head() -> None:
    clock = iter([10.006, 10.0065]).__next__
    [answer] = ANSWERER.answer([merged({1: [1.0], 0: [0.0, 3.0]})], clock)
    assert (answer.result, answer.class_name, answer.class_index) == ("complete", "dog", 1)
    assert (answer.present, answer.missing) == ((0, 1), ())
    assert answer.probabilities[1] == pytest.approx(np.exp(3) / (1 + np.exp(3) + np.exp(1)), abs=1e-6)
    latency = answer.latency_ms
    assert (latency.total, latency.student, latency.queue, latency.merge) == pytest.approx((6.5, 2, 1, 0.5))
    [degraded] = ANSWERER.answer([merged({0: [0.0, 3.0]}, (1,))], lambda: 10.5)
    assert (degraded.result, degraded.class_name, degraded.missing) == ("degraded", "eel", (1,))


def test_an_abandoned_frame_says_so_and_nothing_more() -> None:
    answer = ANSWERER.abandoned(FrameAbandoned(("cam", 7), 10.0, (0,), (1,), "deadline"), 10.5)
    assert (answer.result, answer.class_index, answer.probabilities) == ("abandoned", None, ())
    assert answer.latency_ms.total == pytest.approx(500)
    assert decode_prediction(answer.encode()) == answer


@given(st.lists(st.floats(-MAX_FEATURE, MAX_FEATURE, width=32), min_size=3, max_size=3))
def test_any_features_that_the_protocol_lets_in_give_a_readable_answer(values: list[float]) -> None:
    [answer] = ANSWERER.answer([merged({0: values[:2], 1: values[2:]})], lambda: 10.01)
    assert decode_prediction(answer.encode()) == answer
    assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)


@given(st.lists(st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3), min_size=2, max_size=20))
def test_frames_classified_together_get_what_each_gets_alone(frames: list[list[float]]) -> None:
    rows = [merged({0: values[:2], 1: values[2:]}) for values in frames]
    together = ANSWERER.answer(rows, lambda: 10.01)
    assert together == [ANSWERER.answer([row], lambda: 10.01)[0] for row in rows]


seconds = st.floats(0, 5000)


@given(st.floats(0, 1e6), st.floats(0, 60), st.floats(0, 60), st.floats(0, 1), seconds, seconds)
def test_latency_parts_are_never_negative_and_add_up(
    opened_s: float, waited_s: float, extra_s: float, merge_s: float, student_s: float, agent_s: float
) -> None:
    # student_s and agent_s come from the network: any number.
    arrived_s = opened_s + waited_s
    frame = FrameMerged(("cam", 1), opened_s, {0: Contribution("pi", EYE[0], student_s, agent_s, arrived_s)}, ())
    started_s = arrived_s + extra_s
    split = split_latency(frame, started_s, started_s + merge_s)
    assert split.student + split.queue + split.transport + split.merge == pytest.approx(split.total, abs=1e-3)
