"""While a site switches, every frame gets one answer, from one deployment."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coordinator.feature_merger import Contribution, FeatureMerger, FrameAbandoned, FrameMerged
from coordinator.twin_merger import TwinMerger
from edge_agent.protocol.switch_schedule import SwitchSchedule, SwitchStep

OLD, NEW = "0" * 16, "1" * 16
WIDTHS = (2, 3, 4)


def twins(from_frame=10, quorum=1, room=64):
    mergers = [FeatureMerger(name, WIDTHS, quorum, room) for name in (OLD, NEW)]
    return TwinMerger(*mergers, SwitchSchedule(OLD, (SwitchStep(NEW, {"cam": from_frame}),)))


def features(student, deployment, device="pi"):
    value = 1.0 if deployment == NEW else 0.0
    return Contribution(device, np.full(WIDTHS[student], value, np.float32), 0.0, 0.0, 0.0)


def closing(events):
    return [event for event in events if isinstance(event, FrameMerged | FrameAbandoned)]


messages = st.tuples(
    st.integers(0, 19), st.sampled_from([OLD, NEW]), st.integers(0, 2), st.sampled_from(["pi", "spare"])
)


@given(
    st.lists(st.one_of(messages, st.integers(0, 19), st.none()), max_size=200), st.integers(1, 3), st.integers(3, 64)
)
def test_each_opened_frame_is_answered_once_by_one_deployment(events, quorum, room):
    merger, now, opened, answers = twins(quorum=quorum, room=room), 0.0, set(), []
    for event in events:
        now += 0.01
        if event is None:
            now += 0.3
            found = merger.expire(now)
        elif isinstance(event, int):
            found = merger.open_frame(("cam", event), now, now + 0.5)
            opened.add(event)
        else:
            frame, deployment, student, device = event
            found = merger.receive(("cam", frame), deployment, student, features(student, deployment, device))
        answers += closing(found)
    answers += closing(merger.expire(now + 10))
    assert sorted(answer.key[1] for answer in answers) == sorted(opened)
    assert len(merger) == 0
    assert merger.next_deadline() is None
    for answer in answers:
        if isinstance(answer, FrameMerged):
            value = 1.0 if answer.deployment == NEW else 0.0
            assert all((part.features == value).all() for part in answer.contributions.values())


@given(st.integers(0, 19), st.permutations([(d, s) for d in (OLD, NEW) for s in range(3)]))
def test_the_first_whole_deployment_answers(frame, order):
    merger = twins()
    merger.open_frame(("cam", frame), 0.0, 1.0)
    answers, seen = [], {OLD: set(), NEW: set()}
    first = None
    for deployment, student in order:
        seen[deployment].add(student)
        if first is None and len(seen[deployment]) == 3:
            first = deployment
        answers += closing(merger.receive(("cam", frame), deployment, student, features(student, deployment)))
    assert [(a.deployment, a.missing) for a in answers] == [(first, ())]


def test_at_the_deadline_the_fuller_deployment_answers_and_the_scheduled_one_of_equals():
    for frame, given_features, expected in (
        (5, [(OLD, 0), (NEW, 0), (NEW, 1)], NEW),
        (5, [(OLD, 0), (NEW, 1)], OLD),
        (15, [(OLD, 0), (NEW, 1)], NEW),
        (15, [(OLD, 0), (OLD, 2)], OLD),
    ):
        merger = twins()
        merger.open_frame(("cam", frame), 0.0, 1.0)
        for deployment, student in given_features:
            merger.receive(("cam", frame), deployment, student, features(student, deployment))
        (answer,) = closing(merger.expire(1.0))
        assert answer.deployment == expected


def test_a_frame_that_was_answered_before_the_switch_is_not_answered_again():
    old, new = (FeatureMerger(name, WIDTHS, 1, 64) for name in (OLD, NEW))
    old.open_frame(("cam", 1), 0.0, 1.0)
    old.expire(2.0)
    old.open_frame(("cam", 2), 2.0, 3.0)  # still open when the switch begins
    merger = TwinMerger(old, new, SwitchSchedule(OLD))
    assert not closing(merger.open_frame(("cam", 1), 2.0, 3.0))
    assert not closing(merger.open_frame(("cam", 2), 2.0, 3.0))
    assert len(closing(merger.expire(3.0))) == 1
    assert not closing(new.open_frame(("cam", 2), 4.0, 5.0))
    assert len(new) == 0
