"""Under load messages are taken together; with little to do nothing waits for anything."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.gathering import CROWDED_FRAMES, LONGEST_GATHER_S, PLENTY, gather_s
from coordinator.topic_routes import TopicRoutes
from edge_agent.app import LONGEST_RUN_S, RUN_PART, AgentApp
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.errors import DecodeError
from edge_agent.protocol.feature_message import FeatureMessage, decode_features, encode_features
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.link import Event, Message, Outgoing
from edge_agent.protocol.pack import decode_pack, encode_pack
from edge_agent.protocol.topics import SiteTopics
from edge_agent.settings import AgentSettings
from edge_agent.student_slot import StudentSlot, open_student

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"
TOPICS = SiteTopics("home")


class ScriptedLink:
    """The link's seam: gives the events of one poll after the other, and notes what leaves when."""

    dropped, connected = 0, True

    def __init__(self, clock: Callable[[], float]) -> None:
        self.rounds: list[list[Event]] = []
        self.polls: list[float] = []  # the wait that each was given
        self.sent: list[tuple[float, list[str]]] = []
        self._clock = clock
        self._waiting: list[str] = []

    def poll(self, timeout_s: float, gather_s: float = 0.0) -> list[Event]:
        self.flush()
        self.polls.append(timeout_s)
        return self.rounds.pop(0) if self.rounds else []

    def publish(self, message: Outgoing) -> bool:
        self._waiting.append(message.topic)
        return True

    def flush(self) -> None:
        if self._waiting:
            self.sent.append((self._clock(), self._waiting))
        self._waiting = []

    def subscribe(self, topic_filter: str, qos: int) -> None: ...
    def unsubscribe(self, topic_filter: str) -> None: ...
    def watch(self, descriptor: int) -> None: ...
    def close(self, last_words: Sequence[Outgoing] = ()) -> None: ...


class SlowedRuntime:
    """A real student whose runs take as long as told, on the test's clock."""

    def __init__(self, runtime: Any, take: Callable[[], None]) -> None:
        self._runtime, self._take = runtime, take

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def run(self, image: Any) -> Any:
        self._take()
        return self._runtime.run(image)


class Stand:
    """An agent with both students of the tiny deployment, its link and its clock."""

    def __init__(self, students: Sequence[int], run_s: float) -> None:
        self.now, self._run_s = 50.0, run_s
        deployment = open_deployment(TINY)
        slots = [self._slowed(open_student(deployment, index, "auto", "auto", 1)) for index in students]
        self.link = ScriptedLink(lambda: self.now)
        chosen = AgentSettings(device="pi", students=tuple(students), deployment=TINY)
        self.app = AgentApp(chosen, deployment.id, slots, self.link, lambda: self.now)
        self.shape = slots[0].runtime.input_shape

    def _slowed(self, slot: StudentSlot) -> StudentSlot:
        def take() -> None:
            self.now += self._run_s

        return StudentSlot(slot.student, slot.artifact, SlowedRuntime(slot.runtime, take), slot.selftest_error)

    def frames(self, count: int) -> list[Event]:
        image = np.zeros(self.shape, np.uint8)
        return [Message(TOPICS.frame("cam"), encode_frame(FrameMessage(n, 0, image)), False) for n in range(count)]


def backlog(stand: Stand, count: int, waited_s: float) -> None:
    """Frames have come, and the device was busy for so long."""
    for event in stand.frames(count):
        stand.app._take(event)
    stand.now += waited_s


def test_a_fast_student_runs_through_its_backlog_and_tells_all_at_once() -> None:
    stand = Stand([0], run_s=0.00051)
    backlog(stand, 6, waited_s=0.02)
    for _ in range(3):
        stand.app.step(0.25)
    assert [len(topics) for _, topics in stand.link.sent] == [4, 2]
    assert stand.link.polls == [0.0, 0.0, 0.25]  # with frames waiting nobody waits for more
    assert stand.link.sent[0][0] - 50.02 == pytest.approx(4 * 0.00051)


@given(st.floats(0, 1), st.floats(0.0001, 0.1), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_no_features_wait_longer_than_a_tenth_more(waited_s: float, run_s: float, count: int) -> None:
    stand = Stand([0], run_s)
    backlog(stand, count, waited_s)
    for _ in range(count):
        stand.app.step(0.25)
    assert sum(len(topics) for _, topics in stand.link.sent) == count
    begun, ran = 50 + waited_s, 0
    for sent_s, topics in stand.link.sent:
        waited = begun + ran * run_s - 50  # of the first of them
        assert sent_s - 50 <= waited + min(LONGEST_RUN_S, RUN_PART * waited) + run_s + 1e-9
        ran += len(topics)
        assert sent_s == pytest.approx(begun + ran * run_s)


def test_two_slow_students_of_a_device_do_not_wait_for_each_other() -> None:
    stand = Stand([0, 1], run_s=0.011)
    backlog(stand, 2, waited_s=1.0)
    stand.app.step(0.25)
    assert [sent_s - 51 for sent_s, _ in stand.link.sent] == pytest.approx([0.011, 0.022])


def test_with_one_frame_each_feature_leaves_at_once() -> None:
    stand = Stand([0, 1], run_s=0.0002)
    backlog(stand, 1, waited_s=1.0)
    stand.app.step(0.25)
    assert [len(topics) for _, topics in stand.link.sent] == [1, 1]


def test_the_agent_counts_the_wait_for_the_others_as_its_own_time() -> None:
    stand = Stand([0], run_s=0.00051)
    published: list[Outgoing] = []
    stand.link.publish = lambda message: published.append(message) or True  # type: ignore[method-assign,func-returns-value]
    backlog(stand, 4, waited_s=0.02)
    stand.app.step(0.25)
    times_us = [decode_features(message.payload).agent_us for message in published]
    assert times_us == pytest.approx([20_000 + 4 * 510] * 4, abs=2)


def pack_of(stand: Stand, source: str, ids: range, live: bool = False) -> Message:
    image = np.zeros(stand.shape, np.uint8)
    frames = [encode_frame(FrameMessage(n, 0, image, live)) for n in ids]
    return Message(TOPICS.frame(source), encode_pack(frames), False)


def test_a_pack_is_answered_by_a_pack_when_its_last_frame_is_seen() -> None:
    stand = Stand([0, 1], run_s=0.0002)
    published: list[Outgoing] = []
    stand.link.publish = lambda message: published.append(message) or True  # type: ignore[method-assign,func-returns-value]
    stand.app._take(pack_of(stand, "files", range(10)))
    stand.app._take(pack_of(stand, "files", range(10, 13)))
    stand.app.step(0.25)
    assert [len(decode_pack(message.payload)) for message in published] == [10, 10]
    for message, student in zip(published, (0, 1), strict=True):
        assert TOPICS.parse_feature(message.topic).student == student
        assert [decode_features(one).frame_id for one in decode_pack(message.payload)] == list(range(10))
    assert stand.now - 50 == pytest.approx(10 * 2 * 0.0002)


def test_a_slow_student_does_not_keep_a_pack_back() -> None:
    stand = Stand([0], run_s=0.004)
    stand.app._take(pack_of(stand, "files", range(7)))
    for _ in range(3):
        stand.app.step(0.25)
    assert [sent_s - 50 for sent_s, _ in stand.link.sent] == pytest.approx([0.012, 0.024, 0.028])


def test_a_live_frame_waits_for_nobodys_pack() -> None:
    stand = Stand([0], run_s=0.001)
    stand.app._take(pack_of(stand, "files", range(8)))
    stand.app._take(
        Message(TOPICS.frame("cam"), encode_frame(FrameMessage(1, 0, np.zeros(stand.shape, np.uint8), True)), False)
    )
    stand.app.step(0.25)
    [(sent_s, topics)] = stand.link.sent
    assert sent_s - 50 == pytest.approx(0.002)  # one of the pack, whose turn it was, then the camera's
    assert [TOPICS.parse_feature(topic).source for topic in topics] == ["cam", "files"]


def test_a_pack_with_one_wrong_frame_is_refused_whole() -> None:
    stand = Stand([0], run_s=0.001)
    good = encode_frame(FrameMessage(1, 0, np.zeros(stand.shape, np.uint8)))
    for bad in (encode_frame(FrameMessage(2, 0, np.zeros((9, 9, 1), np.uint8))), b"\x01nothing"):
        stand.app._take(Message(TOPICS.frame("files"), encode_pack([good, bad]), False))
    assert (stand.app.counts.received, stand.app.counts.refused) == (0, 2)


def test_messages_gather_only_among_many_frames_and_never_for_long() -> None:
    assert gather_s(CROWDED_FRAMES - 1, 10.0) == 0.0
    assert gather_s(CROWDED_FRAMES, 0.0) == 0.0
    assert 0 < gather_s(CROWDED_FRAMES, 0.01) <= 0.001
    assert gather_s(1000, 10.0) == LONGEST_GATHER_S
    assert gather_s(1000, 10.0, PLENTY) == 0.0  # there is enough to do


def test_routes_follow_the_deployments_that_may_be_read() -> None:
    deployment = open_deployment(TINY)
    routes = TopicRoutes(TOPICS)
    width = deployment.manifest.widths[0]
    payload = encode_features(FeatureMessage(1, np.zeros(width, np.uint8), 0, 0, bits=8))
    topic = TOPICS.feature("cam", deployment.id, 0, "pi")
    assert routes.features(topic, payload)[1][0].ranges is None  # of a deployment that nobody has told us about
    routes.read_features_of(deployment.id, deployment.manifest)
    codec = deployment.manifest.codecs[0]
    if codec.channel_ranges is None:
        with pytest.raises(DecodeError, match="no ranges"):
            routes.features(topic, payload)
    else:
        assert routes.features(topic, payload)[1][0].ranges is codec.channel_ranges
    routes.read_only("0" * 16, deployment.manifest)
    assert routes.features(topic, payload)[1][0].ranges is None
    assert routes.branch(topic) == "feature"
    assert routes.branch("elsewhere/feature") == ""
    assert routes.frame(TOPICS.frame("cam")) == ("cam", "")
