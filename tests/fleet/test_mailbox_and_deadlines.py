"""The agent's mailbox and the coordinator's deadlines."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coordinator.deadlines import MAX_SOURCES, AdaptiveDeadlines
from edge_agent.mailbox import FrameMailbox, WaitingFrame
from edge_agent.protocol.frame_message import FrameMessage

IMAGE = np.zeros((1, 1, 1), np.uint8)


def waiting(source: str, frame_id: int, live: bool = False) -> WaitingFrame:
    return WaitingFrame(source, FrameMessage(frame_id, 0, IMAGE, live), 0.0)


def taken(mailbox: FrameMailbox) -> list[tuple[str, int]]:
    out = []
    while (one := mailbox.take()) is not None:
        out.append((one.source, one.frame.frame_id))
    return out


puts = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60)


@given(puts, st.integers(1, 8))
def test_the_mailbox_is_bounded_and_accounts_for_every_frame(puts: list[tuple[str, bool]], capacity: int) -> None:
    mailbox = FrameMailbox(capacity)
    for frame_id, (source, live) in enumerate(puts):
        mailbox.put(waiting(source, frame_id, live))
        assert len(mailbox) <= capacity
    out = taken(mailbox)
    assert len(out) + mailbox.dropped == len(puts)
    for name in "abc":
        ids = [frame_id for source, frame_id in out if source == name]
        assert ids == sorted(ids)


@given(puts)
def test_of_a_live_source_only_the_newest_frame_waits(puts: list[tuple[str, bool]]) -> None:
    mailbox = FrameMailbox(100)
    for frame_id, (source, _) in enumerate(puts):
        mailbox.put(waiting(source, frame_id, live=True))
    assert dict(taken(mailbox)) == {source: n for n, (source, _) in enumerate(puts)}


def test_sources_take_turns_and_a_flood_only_hurts_itself() -> None:
    mailbox = FrameMailbox(5)
    for frame_id in range(20):
        mailbox.put(waiting("flood", frame_id))
    mailbox.put(waiting("calm", 1))
    assert taken(mailbox) == [("flood", 16), ("calm", 1), ("flood", 17), ("flood", 18), ("flood", 19)]


def test_a_deadline_is_learned_and_stays_within_its_bounds() -> None:
    deadlines = AdaptiveDeadlines(0.05, 0.5)
    assert deadlines.patience_s("door", live=True) == 0.5
    for _ in range(100):
        deadlines.observe("door", 0.04)
    assert 0.08 <= deadlines.patience_s("door", live=True) <= 0.1
    assert deadlines.patience_s("door", live=False) == 0.5
    for _ in range(100):
        deadlines.observe("fast", 0.001)
    assert deadlines.patience_s("fast", live=True) == 0.05


def test_students_that_come_too_late_lengthen_the_deadline_again() -> None:
    deadlines = AdaptiveDeadlines(0.05, 0.5)
    for _ in range(400):
        deadlines.observe("door", 0.01)
    for _ in range(10):
        deadlines.observe("door", 0.2)
    assert deadlines.patience_s("door", live=True) >= 0.4


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300))
def test_any_delay_gives_a_deadline_within_bounds(delays: list[float]) -> None:
    deadlines = AdaptiveDeadlines(0.05, 0.5)
    for delay in delays:
        deadlines.observe("door", delay)
    assert 0.05 <= deadlines.patience_s("door", live=True) <= 0.5


def test_sources_are_forgotten_when_there_are_too_many() -> None:
    deadlines = AdaptiveDeadlines(0.05, 0.5)
    for number in range(3 * MAX_SOURCES):
        deadlines.observe(f"source-{number}", 0.01)
    assert len(deadlines.by_source()) == MAX_SOURCES
