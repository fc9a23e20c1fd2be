"""Killed at any instruction, a coordinator that is back neither forgets a frame nor answers it otherwise."""

import os
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.answer_log import AnswerLog
from coordinator.frame_journal import FrameJournal
from edge_agent.protocol.frame_message import FrameMessage
from edge_agent.protocol.prediction_message import LatencySplit, PredictionMessage

IMAGE = np.zeros((1, 1, 1), np.uint8)
NO_TIME = LatencySplit(total=1.25, student=0.1, queue=1 / 3, transport=0, merge=0)


def answer(frame_id, classes=3):
    return PredictionMessage(
        frame_id=frame_id, source="cam", coordinator="main", deployment="0" * 16, result="complete", class_index=0,
        class_name="a", probabilities=tuple(1 / 3 for _ in range(classes)), latency_ms=NO_TIME,
    )  # fmt: skip


def opened(path):
    """A journal, and what it says of the last session: [(frame_id, result, published)]."""
    said = []
    journal = FrameJournal(path, 8, "main", lambda: "1" * 16, lambda p, publish: said.append((p, publish)))
    journal.connected()
    rounds(journal)
    return journal, [(p.frame_id, p.result, publish) for p, publish in said]


def rounds(journal):
    """What is published leaves with the next look at the network; a tick ends each round."""
    journal.tick(0.0)
    journal.tick(0.0)


def die_after(path, *acts):
    """A session that does these things and is killed."""
    child = os.fork()
    if child == 0:
        try:
            journal, _ = opened(path)
            for act, argument in acts:
                if act == "open":
                    journal.on_frame("cam", FrameMessage(argument, 0, IMAGE), 0.0)
                elif act == "before":
                    journal.before_answer(answer(argument).encode())
                elif act == "after":
                    journal.on_prediction(answer(argument), None, 0.0)
                else:
                    journal.tick(0.0)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("acts", "found"),
    [
        ([("open", 1)], [(1, "abandoned", True)]),
        # It may be out or not: the same answer once more, which a source that has it ignores.
        ([("open", 1), ("before", 1)], [(1, "complete", True)]),
        ([("open", 1), ("before", 1), ("after", 1)], [(1, "complete", True)]),
        ([("open", 1), ("before", 1), ("after", 1), ("tick", 0)], [(1, "complete", True)]),
        ([("open", 1), ("before", 1), ("after", 1), ("tick", 0), ("tick", 0)], [(1, "complete", False)]),
        (
            [("open", 1), ("open", 2), ("before", 1), ("after", 1), ("tick", 0), ("tick", 0)],
            [(1, "complete", False), (2, "abandoned", True)],
        ),
    ],
)
def test_killed_between_any_two_acts(tmp_path, acts, found):
    die_after(tmp_path / "journal", *acts)
    _, said = opened(tmp_path / "journal")
    assert said == found
    _, again = opened(tmp_path / "journal")  # and the session after that knows all of it, and repeats nothing
    assert sorted(again) == sorted((frame_id, result, False) for frame_id, result, _ in found)


def test_an_answer_that_was_not_sent_survives_two_deaths(tmp_path):
    path = tmp_path / "journal"
    die_after(path, ("open", 1), ("before", 1))
    unheard = FrameJournal(path, 8, "main", lambda: "1" * 16, lambda p, publish: None)
    rounds(unheard)  # no broker: it dies before it is connected
    assert opened(path)[1] == [(1, "complete", True)]


def test_answers_come_back_byte_for_byte(tmp_path):
    path, back = tmp_path / "journal", []
    die_after(path, ("open", 1), ("before", 1))
    FrameJournal(path, 8, "main", lambda: "1" * 16, lambda p, publish: back.append(p.encode())).connected()
    assert back == [answer(1).encode()]


def test_garbage_in_the_file_is_not_read_as_anything(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(os.urandom(700_000))
    assert opened(path)[1] == []


payloads = st.lists(st.binary(min_size=1, max_size=40), max_size=60)


@given(payloads, st.integers(20, 200))
def test_the_log_gives_back_the_last_answers_whole(contents, size):
    memory = memoryview(bytearray(size))
    log, kept = AnswerLog(memory), []
    for number, content in enumerate(contents):
        log.append(content)
        if number % 3 == 2:
            log.mark_sent()
        if len(content) + 10 <= size // 2:
            kept.append(content)
    found = [logged.payload for logged in AnswerLog(memory).read()]
    halves_full = sum(len(c) + 5 for c in found)
    assert sorted(found) == sorted(kept[len(kept) - len(found) :])  # no gap, nothing else
    assert len(found) == len(kept) or halves_full >= size // 2 - 2 * 45


@given(payloads, st.integers(0, 400), st.binary(max_size=80))
def test_a_torn_log_is_read_without_harm(contents, at, noise):
    memory = memoryview(bytearray(300))
    log = AnswerLog(memory)
    for content in contents:
        log.append(content)
    at = min(at, 300 - len(noise)) if len(noise) <= 300 else 0
    memory[at : at + len(noise)] = noise
    for logged in AnswerLog(memory).read():
        assert 0 < len(logged.payload) < 150
