"""Whatever arrives on whatever topic: the programs stay up, count, say so once, and go on answering."""

import json
import secrets
from typing import Any

import numpy as np
import pytest

from edge_agent.protocol.frame_message import FrameMessage, encode_frame

GOOD_FRAME = encode_frame(FrameMessage(5, 0, np.zeros((8, 8, 1), np.uint8)))
OTHER_SIZE = encode_frame(FrameMessage(6, 0, np.zeros((9, 8, 1), np.uint8)))
COLOUR = encode_frame(FrameMessage(6, 0, np.zeros((8, 8, 3), np.uint8)))
PAYLOADS = [
    b"", b"\0", b"\xff" * 40, GOOD_FRAME[:-1], GOOD_FRAME[:10], b"\x02" + GOOD_FRAME[1:], OTHER_SIZE, COLOUR, b"{}",
    b'{"v":2}', b'{"v":1,"state":"online"', b'{"v":1,"state":"asleep","session":1}', b"[" * 5000,
    bytes(range(256)) * 200,
]  # fmt: skip


def bad_topics(topics: Any, deployment: str) -> list[str]:
    root = topics.root
    return [
        topics.frame("cam"), f"{root}/frame/Bad_Name", f"{root}/frame/" + "x" * 300, f"{root}/frame",
        topics.feature("cam", deployment, 0, "pi-1"), topics.feature("cam", "f" * 16, 0, "pi-1"),
        topics.feature("cam", deployment, 99, "pi-1"), f"{root}/feature/cam/{deployment}/x/pi-1", f"{root}/feature/cam",
        topics.node("pi-1", "state"), topics.node("pi-1", "info"), topics.node("pi-1", "telemetry"),
        topics.node("pi-1", "nonsense"), f"{root}/node/Bad_Name/state", topics.coordinator("main", "state"),
        topics.coordinator("main", "info"), topics.prediction("cam"), f"{root}/unknown/branch",
    ]  # fmt: skip


@pytest.mark.parametrize("retain", [False, True], ids=["live", "retained"])
def test_garbage_on_every_topic_stops_nothing(stage: Any, broker: Any, retain: bool) -> None:
    watcher = stage.watcher(broker.port)
    topics = watcher.topics
    agent = stage.agent(broker.port, "pi-1", "0,1,2")
    coordinator = stage.coordinator(broker.port)
    coordinator.wait_for("pi-1 is online")
    watcher.until(lambda: bool(watcher.on(topics.node("pi-1", "telemetry"))), "telemetry")
    before = watcher.latest(topics.node("pi-1", "telemetry"))
    deployment = str(watcher.latest(topics.node("pi-1", "info"))["deployment"])
    for topic in bad_topics(topics, deployment):
        for payload in [*PAYLOADS, secrets.token_bytes(64)]:
            watcher.publish(topic, payload, retain)
    watcher.listen(0.5)

    def refused() -> int:
        found = [m.payload for m in watcher.on(topics.node("pi-1", "telemetry")) if b'"messages_refused"' in m.payload]
        return int(json.loads(found[-1])["messages_refused"])

    watcher.until(lambda: refused() > int(str(before["messages_refused"])), "the agent counts")
    coordinator.wait_for("refused message")
    agent.wait_for("refused message")
    for topic in bad_topics(topics, deployment):
        watcher.publish(topic, b"", retain=True)  # purge
    watcher.messages.clear()
    watcher.publish(topics.frame("cam"), encode_frame(FrameMessage(77, 0, np.zeros((8, 8, 1), np.uint8))), qos=0)
    watcher.until(lambda: "result" in watcher.latest(topics.prediction("cam")), "an answer")
    assert watcher.latest(topics.prediction("cam"))["result"] == "complete"
    for program in (agent, coordinator):
        assert program.child.poll() is None
        lines = program.output.splitlines()
        assert len([line for line in lines if "refused message" in line]) <= 2 * len(bad_topics(topics, deployment))
        assert all(len(line) < 600 for line in lines)


def test_a_garbled_own_state_is_set_right(stage: Any, broker: Any) -> None:
    watcher = stage.watcher(broker.port)
    stage.agent(broker.port, "pi-1", "0")
    topic = watcher.topics.node("pi-1", "state")
    born = watcher.until_state(topic, "online")
    watcher.publish(topic, b"garbage", retain=True)
    watcher.until(lambda: len(watcher.on(topic)) >= 3 and watcher.on(topic)[-1].payload != b"garbage", "set right")
    assert watcher.latest(topic) == born


def test_a_client_is_not_led_astray(stage: Any, broker: Any) -> None:
    watcher = stage.watcher(broker.port)
    stage.agent(broker.port, "pi-1", "0,1,2").wait_for("connected to")
    stage.coordinator(broker.port).wait_for("pi-1 is online")
    for leaf in ("state", "info"):
        for payload in (b"\xff", b"{}", b'{"v":2}'):
            watcher.publish(watcher.topics.node("ghost", leaf), payload, retain=True)
            watcher.publish(watcher.topics.node("Bad_Name", leaf), payload, retain=True)
    client = stage.program("coordinator.cli", broker.port, "classify", str(stage.image()))
    assert client.child.wait(30) == 0, client.output
    assert "%" in client.output.splitlines()[-1]
