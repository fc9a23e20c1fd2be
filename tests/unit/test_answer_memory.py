"""A frame that is sent again gets the same answer again, and is merged, counted and told of once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.answer_memory import KEPT_ANSWERS, KEPT_SCORES, KEPT_SOURCES, AnswerMemory
from edge_agent.protocol.prediction_message import LatencySplit, PredictionMessage

NO_TIME = LatencySplit(total=0, student=0, queue=0, transport=0, merge=0)


def answer(frame_id, source="cam", classes=2):
    return PredictionMessage(
        frame_id=frame_id, source=source, coordinator="main", deployment="0" * 16, result="complete", class_index=0,
        class_name="a", probabilities=(1.0,) + (0.0,) * (classes - 1), latency_ms=NO_TIME,
    )  # fmt: skip


def test_the_last_answers_of_a_source_are_known_and_no_more():
    memory = AnswerMemory()
    for number in range(KEPT_ANSWERS + 5):
        memory.keep(answer(number))
    assert [memory.find(("cam", number)) for number in range(5)] == [None] * 5
    assert all(memory.find(("cam", number)) == answer(number) for number in range(5, KEPT_ANSWERS + 5))
    assert memory.find(("door", 7)) is None


def test_a_busy_source_does_not_cost_another_one_its_answers():
    memory = AnswerMemory()
    memory.keep(answer(1, "slow"))
    for number in range(10 * KEPT_ANSWERS):
        memory.keep(answer(number, "fast"))
    assert memory.find(("slow", 1)) is not None


def test_the_source_that_was_answered_longest_ago_makes_room():
    memory = AnswerMemory()
    for number in range(KEPT_SOURCES):
        memory.keep(answer(1, f"cam-{number}"))
    memory.keep(answer(2, "cam-0"))
    memory.keep(answer(1, "new"))
    assert memory.find(("cam-1", 1)) is None
    assert memory.find(("cam-0", 1)) is not None
    assert memory.find(("new", 1)) is not None


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 300), st.sampled_from([0, 2, 1000])), max_size=400))
def test_it_never_grows_beyond_its_bounds_and_never_tells_anothers_answer(events):
    memory = AnswerMemory()
    for source, number, classes in events:
        name = f"cam-{source}"
        given_answer = answer(number, name, classes) if classes else answer(number, name).model_copy(
            update={"result": "abandoned", "class_index": None, "class_name": None, "probabilities": ()}
        )  # fmt: skip
        memory.keep(given_answer)
        assert memory.find((name, number)) == given_answer
        kept = [a for answers in memory._sources.values() for a in answers.values()]
        assert len(memory._sources) <= KEPT_SOURCES
        assert memory._scores == sum(len(a.probabilities) for a in kept) <= KEPT_SCORES


@pytest.mark.parametrize("classes", [10, 1000])
def test_a_thousand_classes_cost_no_more_memory_than_ten(classes):
    memory = AnswerMemory()
    for number in range(KEPT_ANSWERS):
        for source in range(4):
            memory.keep(answer(number, f"cam-{source}", classes))
    assert memory._scores <= KEPT_SCORES
