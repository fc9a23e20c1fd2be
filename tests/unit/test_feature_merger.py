"""The merger: each opened frame closes exactly once, whatever arrives in whatever order."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.feature_merger import (
    REMEMBERED_FRAMES,
    Contribution,
    FeatureIgnored,
    FeatureMerger,
    FrameAbandoned,
    FrameIgnored,
    FrameMerged,
)

D = "0123456789abcdef"
WIDTHS = (2, 3, 1)
KEY = ("cam", 1)


def part(student: int, device: str = "pi", value: float = 1.0, at: float = 0.0) -> Contribution:
    return Contribution(device, np.full(WIDTHS[student], value, np.float32), 0.001, 0.002, at)


@pytest.fixture
def merger() -> FeatureMerger:
    return FeatureMerger(D, WIDTHS, quorum=2, max_open_frames=3)


def closed(events: list[object]) -> list[object]:
    return [event for event in events if isinstance(event, FrameMerged | FrameAbandoned)]


def reason(events: list[object]) -> str:
    (event,) = events
    assert isinstance(event, FeatureIgnored)
    return event.reason


def test_the_last_student_completes_a_frame(merger: FeatureMerger) -> None:
    assert merger.open_frame(KEY, 1.0, 2.0) == []
    assert closed(merger.receive(KEY, D, 2, part(2))) == []
    assert closed(merger.receive(KEY, D, 0, part(0))) == []
    (event,) = merger.receive(KEY, D, 1, part(1))
    assert isinstance(event, FrameMerged)
    assert (event.key, event.opened_s, event.missing, sorted(event.contributions)) == (KEY, 1.0, (), [0, 1, 2])
    assert len(merger) == 0
    assert merger.next_deadline() is None
    assert merger.expire(99.0) == []


def test_at_the_deadline_a_quorum_is_degraded_and_less_is_abandoned(merger: FeatureMerger) -> None:
    merger.open_frame(KEY, 1.0, 2.0)
    merger.open_frame(("cam", 2), 1.0, 2.5)
    for student in (0, 2):
        merger.receive(KEY, D, student, part(student))
    merger.receive(("cam", 2), D, 1, part(1))
    assert merger.next_deadline() == 2.0
    assert merger.expire(1.999) == []
    (degraded,) = merger.expire(2.0)
    assert isinstance(degraded, FrameMerged)
    assert degraded.missing == (1,)
    (abandoned,) = merger.expire(9.0)
    assert isinstance(abandoned, FrameAbandoned)
    assert (abandoned.present, abandoned.missing, abandoned.reason) == ((1,), (0, 2), "deadline")


def test_everything_else_is_ignored_with_its_reason(merger: FeatureMerger) -> None:
    assert reason(merger.receive(KEY, D, 0, part(0))) == "unknown"
    merger.open_frame(KEY, 1.0, 2.0)
    assert merger.open_frame(KEY, 1.5, 9.0) == [FrameIgnored(KEY)]
    merger.receive(KEY, D, 0, part(0, value=1.0))
    assert reason(merger.receive(KEY, D, 0, part(0, value=9.0))) == "repeated"
    assert reason(merger.receive(KEY, D, 0, part(0, "other"))) == "replica"
    assert reason(merger.receive(KEY, "f" * 16, 1, part(1))) == "deployment"
    assert reason(merger.receive(KEY, D, 3, part(1))) == "student"
    assert reason(merger.receive(KEY, D, 1, part(0))) == "width"
    merger.receive(KEY, D, 1, part(1))
    (event,) = merger.expire(2.0)
    assert isinstance(event, FrameMerged)
    assert event.contributions[0].features.tolist() == [1.0, 1.0], "the first one counts"
    assert reason(merger.receive(KEY, D, 2, part(2))) == "late"
    assert merger.open_frame(KEY, 3.0, 4.0) == [FrameIgnored(KEY)]


def test_the_oldest_frame_makes_room(merger: FeatureMerger) -> None:
    for number in range(3):
        merger.open_frame(("cam", number), 0.0, 5.0)
    (event,) = merger.open_frame(("cam", 3), 1.0, 5.0)
    assert isinstance(event, FrameAbandoned)
    assert (event.key, event.reason) == (("cam", 0), "overflow")
    assert len(merger) == 3


def test_students_that_nobody_runs_are_not_waited_for(merger: FeatureMerger) -> None:
    merger.open_frame(KEY, 0.0, 5.0, absent=frozenset({1}))
    assert closed(merger.receive(KEY, D, 0, part(0))) == []
    (event,) = merger.receive(KEY, D, 2, part(2))
    assert isinstance(event, FrameMerged)
    assert event.missing == (1,)


def test_memory_does_not_grow_with_what_was_closed(merger: FeatureMerger) -> None:
    for number in range(2 * REMEMBERED_FRAMES):
        key = ("cam", number)
        merger.open_frame(key, 0.0, 1e9)
        for student in range(3):
            merger.receive(key, D, student, part(student))
    assert len(merger) == 0
    assert len(merger._closed) == REMEMBERED_FRAMES
    assert len(merger._deadlines) <= 8


actions = st.one_of(
    st.tuples(st.just("open"), st.integers(0, 8), st.floats(0.1, 3)),
    st.tuples(st.just("feature"), st.integers(0, 8), st.integers(0, 4)),
    st.tuples(st.just("pass"), st.just(0), st.floats(0, 1)),
)


@given(st.lists(actions, max_size=80), st.integers(1, 3))
def test_every_opened_frame_closes_exactly_once_and_in_time(steps: list[tuple[str, int, float]], quorum: int) -> None:
    merger = FeatureMerger(D, WIDTHS, quorum, max_open_frames=4)
    now = 0.0
    deadlines: dict[int, float] = {}
    seen: Counter[int] = Counter()

    def note(events: list[object]) -> None:
        for event in closed(events):
            seen[event.key[1]] += 1
            present = event.contributions if isinstance(event, FrameMerged) else event.present
            assert sorted([*present, *event.missing]) == [0, 1, 2]
            assert not isinstance(event, FrameMerged) or len(present) >= quorum

    for kind, number, value in steps:
        if kind == "open":
            if number not in deadlines:
                deadlines[number] = now + value
            note(merger.open_frame(("cam", number), now, now + value))
        elif kind == "feature":
            student = int(value)
            note(merger.receive(("cam", number), D, student, part(min(student, 2))))
        else:
            now += value
            note(merger.expire(now))
            assert all(seen[frame] for frame, deadline in deadlines.items() if deadline <= now)
        assert len(merger) <= 4
    note(merger.expire(now + 10))
    assert seen == dict.fromkeys(deadlines, 1)
