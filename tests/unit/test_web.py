"""Dashboard without a server: who may do what, what a snapshot becomes, who is waited for."""

import asyncio
import base64
import io

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from coordinator.accuracy import MAX_LABELS, FrameLabel, LabelBook
from coordinator.feature_merger import Contribution
from coordinator.web.access import Access, Allowance, Caller
from coordinator.web.settings import DashboardSettings
from coordinator.web.snapshot import ShownDeployment, Sighting
from coordinator.web.streams import Broadcast
from coordinator.web.view import draw_sighting, picture_url, rates
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.link import Message
from edge_agent.protocol.prediction_message import LatencySplit, PredictionMessage
from edge_agent.protocol.topics import SiteTopics

TOKEN = "0123456789abcdef"


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def caller(**more):
    usual = {"address": "10.0.0.9", "host": "localhost:8080", "origin": None, "bearer": None, "session": None}
    return Caller(**{**usual, **more})


def access(**settings):
    clock = Clock()
    return Access(DashboardSettings(port=8080, **settings), clock), clock


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "coordinator.local", "::"])
def test_other_addresses_than_loopback_need_a_token(host):
    with pytest.raises(ValidationError, match="token"):
        DashboardSettings(port=8080, host=host)
    DashboardSettings(port=8080, host=host, token=TOKEN)


def test_short_tokens_are_refused():
    with pytest.raises(ValidationError, match="16 characters"):
        DashboardSettings(port=8080, token="short")


def test_sessions_begin_with_the_token_and_end():
    door, clock = access(token=TOKEN)
    assert door.log_in("guess") is None
    session = door.log_in(TOKEN)
    assert door.knows(caller(session=session))
    assert not door.knows(caller(session=session + "x"))
    assert not door.knows(caller())
    clock.now += 8 * 24 * 3600
    assert not door.knows(caller(session=session))
    second = door.log_in(TOKEN)
    door.log_out(second)
    assert not door.knows(caller(session=second))


def test_a_bearer_token_is_compared_whole():
    door, _ = access(token=TOKEN)
    assert door.knows(caller(bearer=TOKEN))
    for wrong in ("", TOKEN[:-1], TOKEN + "0", "\udcff"):
        assert not door.knows(caller(bearer=wrong))


@pytest.mark.parametrize(
    ("host", "ours"),
    [("localhost:8080", True), ("127.0.0.1", True), ("[::1]:8080", True), ("evil.example", False), ("", False)],
)
def test_without_a_token_only_loopback_names_are_ours(host, ours):
    assert access()[0].is_our_host(host) == ours


@pytest.mark.parametrize(
    ("origin", "ours"),
    [(None, True), ("http://localhost:8080", True), ("http://evil.example", False), ("null", False)],
)
def test_acts_come_from_our_own_page(origin, ours):
    assert access()[0].is_our_page(caller(origin=origin)) == ours


def test_an_allowance_refills_and_is_each_callers_own():
    clock = Clock()
    allowance = Allowance(burst=3, per_s=1, clock=clock)
    assert [allowance.take("a") for _ in range(3)] == [0, 0, 0]
    assert 0 < allowance.take("a") <= 1
    assert allowance.take("b") == 0
    clock.now += 1
    assert allowance.take("a") == 0


@pytest.fixture
def shown(tiny):
    directory = open_deployment(tiny)
    manifest = directory.manifest
    head = MergeHead.from_bytes(directory.read(manifest.head), manifest.widths, len(manifest.classes))
    return ShownDeployment(directory.id, manifest, head)


def sighting(shown, present):
    generator = np.random.default_rng(5)
    widths = shown.manifest.widths
    parts = {
        s: Contribution(f"pi-{s}", generator.random(widths[s], np.float32), 0.001, 0.002, 10.0 + s / 100)
        for s in present
    }
    scores = probabilities(*shown.head.merge({s: part.features for s, part in parts.items()}))
    best = int(np.argmax(scores))
    prediction = PredictionMessage(
        frame_id=1, source="a", coordinator="main", deployment=shown.id, class_index=best, present=tuple(present),
        result="complete" if len(present) == 3 else "degraded", class_name=shown.manifest.classes[best],
        probabilities=tuple(scores.tolist()), missing=tuple(set(range(3)) - set(present)),
        latency_ms=LatencySplit(total=30, student=1, queue=1, transport=27, merge=1),
    )  # fmt: skip
    return Sighting(prediction, np.zeros((8, 8, 1), np.uint8), None, 10.0, parts)


def test_the_answer_without_a_student_is_the_one_of_the_subsets_head(shown):
    seen = sighting(shown, (0, 1, 2))
    drawn = draw_sighting(seen, shown)
    for row in drawn["contributions"]:
        rest = {s: part.features for s, part in seen.contributions.items() if s != row["student"]}
        scores = probabilities(*shown.head.merge(rest))
        assert row["without"] == [shown.manifest.classes[int(np.argmax(scores))], pytest.approx(scores.max(), abs=1e-4)]
    assert [row["after_ms"] for row in drawn["contributions"]] == pytest.approx([0, 10, 20], abs=0.01)


def test_the_last_student_has_no_answer_without_it(shown):
    [row] = draw_sighting(sighting(shown, (1,)), shown)["contributions"]
    assert row["without"] is None


def test_answers_of_an_unknown_deployment_are_shown_without_explanation(shown):
    drawn = draw_sighting(sighting(shown, (0, 1, 2)), None)
    assert all(row["without"] is None for row in drawn["contributions"])


@pytest.mark.parametrize(("shape", "kind"), [((8, 8, 1), "png"), ((96, 96, 3), "png"), ((480, 640, 3), "jpeg")])
def test_pictures_are_exact_when_small_and_light_when_large(shape, kind):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    head, _, content = picture_url(image).partition(",")
    assert head == f"data:image/{kind};base64"
    opened = Image.open(io.BytesIO(base64.b64decode(content)))
    if kind == "png":
        assert np.array_equal(np.asarray(opened).reshape(shape), image)
    else:
        assert max(opened.size) <= 320


def test_rates_of_nothing_are_nothing():
    assert rates([], 10.0, 10.0).p50_ms is None


def test_labels_count_once_and_are_bounded():
    book = LabelBook(SiteTopics("home"))
    for number in range(MAX_LABELS + 10):
        payload = FrameLabel(frame_id=number, class_name="cat").encode()
        assert book.receive(Message("nonn/1/home/label/a", payload, retain=False))
    split = LatencySplit(total=1, student=0, queue=0, transport=1, merge=0)

    def answer(frame_id, name):
        return PredictionMessage(
            frame_id=frame_id, source="a", coordinator="main", deployment="d" * 16, result="complete", class_index=0,
            class_name=name, probabilities=(1.0,), present=(0,), latency_ms=split,
        )  # fmt: skip

    for frame_id, name in [(100, "cat"), (101, "dog"), (100, "cat"), (0, "cat"), (99_999, "cat")]:
        book.on_prediction(answer(frame_id, name), None, 1.0)
    assert book.score("a") == (2, 1), "one right, one wrong; repeated, forgotten and unlabelled frames do not count"


def test_a_slow_page_gets_the_newest_update_and_skips_the_rest():
    async def follow():
        broadcast = Broadcast()
        for number in range(50):
            broadcast.publish(str(number))
        serial, chunk = await broadcast.next_after(0)
        assert chunk == b"data: 49\n\n"
        waiting = asyncio.ensure_future(broadcast.next_after(serial))
        await asyncio.sleep(0)
        assert not waiting.done()
        broadcast.publish("50")
        assert (await waiting)[1] == b"data: 50\n\n"

    asyncio.run(follow())


def test_many_pages_get_fewer_updates_each():
    async def pauses():
        broadcast = Broadcast()
        few = broadcast.pause_s
        broadcast.open_streams = 100
        return few, broadcast.pause_s

    few, many = asyncio.run(pauses())
    assert few == 0.1
    assert many >= 0.2


def test_the_rollout_is_shown_until_it_is_purged():
    from coordinator.roster import Roster
    from coordinator.web.live_feed import LiveFeed
    from edge_agent.protocol.update_messages import RolloutStatus

    topics, taken = SiteTopics("home"), []
    topic = "nonn/1/home/coordinator/main/rollout"
    labels = LabelBook(topics)
    feed = LiveFeed(topics, Roster(), labels, taken.append, lambda: True, lambda: True, "d" * 16, topic)
    status = RolloutStatus(v=1, phase="canary", active="a" * 16, active_version=1, target="b" * 16)
    for moment, payload in [(1.0, status.encode()), (2.0, b"")]:
        assert feed.receive(Message(topic, payload, retain=True))
        feed.tick(moment)
    assert [snapshot.rollout for snapshot in taken] == [status, None]


def test_after_an_update_the_new_deployment_is_shown_without_a_frame():
    from coordinator.roster import Roster
    from coordinator.web.live_feed import LiveFeed
    from edge_agent.protocol.update_messages import RolloutStatus

    topics, taken = SiteTopics("home"), []
    topic = "nonn/1/home/coordinator/main/rollout"
    feed = LiveFeed(topics, Roster(), LabelBook(topics), taken.append, lambda: True, lambda: True, "d" * 16, topic)
    for moment, phase, active in [(1.0, "switching", "d" * 16), (2.0, "complete", "b" * 16)]:
        status = RolloutStatus(v=1, phase=phase, active=active, active_version=1, target="b" * 16)
        feed.receive(Message(topic, status.encode(), retain=True))
        feed.tick(moment)
    assert [snapshot.deployment for snapshot in taken] == ["d" * 16, "b" * 16]


def test_snapshots_come_ten_times_a_second_at_most():
    from coordinator.roster import Roster
    from coordinator.web.live_feed import LiveFeed

    topics, taken = SiteTopics("home"), []
    feed = LiveFeed(topics, Roster(), LabelBook(topics), taken.append, lambda: True, lambda: True, "d" * 16, "r")
    for step in range(10_000):
        feed.tick(1.0 + step / 1000)
    assert 90 <= len(taken) <= 100
