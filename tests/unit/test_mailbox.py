"""The agent's mailbox: bounded, in order, newest only for live frames, fair to all sources."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.mailbox import FrameMailbox, WaitingFrame
from edge_agent.protocol.frame_message import FrameMessage

IMAGE = np.zeros((1, 1, 1), np.uint8)


def waiting(source: str, frame_id: int, live: bool = False) -> WaitingFrame:
    return WaitingFrame(source, FrameMessage(frame_id, 0, IMAGE, live), float(frame_id))


def drained(mailbox: FrameMailbox) -> list[tuple[str, int]]:
    taken = []
    while (frame := mailbox.take()) is not None:
        taken.append((frame.source, frame.frame.frame_id))
    return taken


def test_files_come_out_in_order() -> None:
    mailbox = FrameMailbox(10)
    for frame_id in range(5):
        mailbox.put(waiting("a", frame_id))
    assert drained(mailbox) == [("a", frame_id) for frame_id in range(5)]
    assert mailbox.dropped == 0


def test_a_live_frame_replaces_the_waiting_one_of_its_source() -> None:
    mailbox = FrameMailbox(10)
    for frame_id in range(5):
        mailbox.put(waiting("cam", frame_id, live=True))
        mailbox.put(waiting("other", frame_id, live=True))
    assert sorted(drained(mailbox)) == [("cam", 4), ("other", 4)]
    assert mailbox.dropped == 8


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=60),
)
def test_nothing_is_lost_uncounted_doubled_or_out_of_order(capacity: int, steps: list[tuple[str, bool, bool]]) -> None:
    mailbox = FrameMailbox(capacity)
    taken: list[tuple[str, int]] = []
    for frame_id, (source, live, take) in enumerate(steps):
        mailbox.put(waiting(source, frame_id, live))
        assert len(mailbox) <= capacity
        if take and (frame := mailbox.take()) is not None:
            taken.append((frame.source, frame.frame.frame_id))
    taken += drained(mailbox)
    assert len(mailbox) == 0
    assert len(taken) + mailbox.dropped == len(steps)
    assert max(Counter(taken).values(), default=1) == 1
    for source in "abc":
        of_source = [frame_id for name, frame_id in taken if name == source]
        assert of_source == sorted(of_source)
