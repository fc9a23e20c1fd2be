"""How a site grows: several students on a device, several coordinators, shared frames, callers of MQTT 3.1.1."""

import base64
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from edge_agent.protocol.frame_message import FrameMessage, encode_frame

FRAMES = 40


def send(watcher: Any, first_id: int, count: int = FRAMES, source: str = "cam") -> list[int]:
    images = np.random.default_rng(first_id).integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)
    for number, image in enumerate(images):
        frame = FrameMessage(first_id + number, 0, image)
        watcher.publish(watcher.topics.frame(source), encode_frame(frame), qos=0)
    return list(range(first_id, first_id + count))


def answers(watcher: Any, source: str = "cam") -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in watcher.on(watcher.topics.prediction(source))]


def test_coordinators_of_a_group_share_the_frames_and_each_is_answered_once(stage: Any, broker: Any) -> None:
    stage.agent(broker.port, "pi-1", "0,1,2").wait_for("connected")
    for name, assigns in (("north", "true"), ("south", "false")):
        flags = ["--coordinator", name, "--share-group", "all", "--assign", assigns, "--requests", assigns]
        flags += ["--deadline-ms", "5000"]
        stage.coordinator(broker.port, *flags).wait_for("pi-1 is online")
    watcher = stage.watcher(broker.port)
    sent = send(watcher, 1000)
    watcher.until(lambda: len(answers(watcher)) >= FRAMES, "all answers")
    watcher.listen(0.5)
    given = answers(watcher)
    assert sorted(answer["frame_id"] for answer in given) == sent
    assert {answer["result"] for answer in given} == {"complete"}
    assert set(Counter(answer["coordinator"] for answer in given)) == {"north", "south"}


def test_replicas_of_a_group_share_the_frames_among_them(stage: Any, broker: Any) -> None:
    stage.agent(broker.port, "pi-1", "0,1,2", "--share-group", "pair").wait_for("connected")
    stage.agent(broker.port, "pi-2", "0,1,2", "--share-group", "pair").wait_for("connected")
    stage.coordinator(broker.port, "--deadline-ms", "5000").wait_for("pi-2 is online")
    watcher = stage.watcher(broker.port)
    send(watcher, 2000)
    watcher.until(lambda: len(answers(watcher)) >= FRAMES, "all answers")
    assert {answer["result"] for answer in answers(watcher)} == {"complete"}
    devices = Counter(m.topic.rsplit("/", 1)[1] for m in watcher.messages if "/feature/" in m.topic)
    assert sum(devices.values()) == 3 * FRAMES  # nobody ran a student twice for one frame
    assert set(devices) == {"pi-1", "pi-2"}


def test_each_coordinator_answers_its_own_sources(stage: Any, broker: Any) -> None:
    stage.agent(broker.port, "pi-1", "0,1,2").wait_for("connected")
    for name, source, assigns in (("hall", "hall-1", "true"), ("yard", "yard-1", "false")):
        flags = ["--coordinator", name, "--sources", source, "--assign", assigns, "--requests", assigns]
        stage.coordinator(broker.port, *flags).wait_for("pi-1 is online")
    watcher = stage.watcher(broker.port)
    for source, name in (("hall-1", "hall"), ("yard-1", "yard")):
        send(watcher, 3000, 5, source)
        watcher.until(lambda source=source: len(answers(watcher, source)) >= 5, f"answers for {source}")
        assert {answer["coordinator"] for answer in answers(watcher, source)} == {name}


def test_an_early_answer_goes_out_while_a_student_is_still_missing(stage: Any, broker: Any) -> None:
    stage.agent(broker.port, "pi-1", "0,1").wait_for("connected")  # and nobody runs student 2
    stage.coordinator(broker.port, "--early-answer", "0.01", "--deadline-ms", "400").wait_for("pi-1 is online")
    watcher = stage.watcher(broker.port)
    sent = send(watcher, 4000, 5)
    watcher.until(lambda: len(answers(watcher)) == 5, "the one answer of each frame")
    early = [json.loads(m.payload) for m in watcher.on(watcher.topics.early_prediction("cam"))]
    assert [answer["frame_id"] for answer in early] == sent
    assert {tuple(answer["present"]) for answer in early} <= {(0,), (1,)}
    assert {(answer["result"], tuple(answer["present"])) for answer in answers(watcher)} == {("degraded", (0, 1))}
    topics = [m.topic for m in watcher.messages if "/prediction/cam" in m.topic]
    assert topics[0].endswith("/early")


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_caller_gets_an_answer_to_its_own_image(stage: Any, broker: Any, protocol: str) -> None:
    stage.agent(broker.port, "pi-1", "0,1,2").wait_for("connected")
    stage.coordinator(broker.port).wait_for("pi-1 is online")
    watcher = stage.watcher(broker.port, protocol)
    content = stage.image().read_bytes()
    request = {"v": 1, "transaction": "mine-1", "image": base64.b64encode(content).decode()}
    watcher.publish(watcher.topics.request("classify"), json.dumps(request).encode())
    watcher.publish(
        watcher.topics.request("classify"), json.dumps({**request, "transaction": "b", "image": "??"}).encode()
    )
    response = watcher.topics.response("classify")
    watcher.until(lambda: len(watcher.on(response)) == 2, "both responses")
    by_name = {answer["transaction"]: answer for answer in (json.loads(m.payload) for m in watcher.on(response))}
    assert by_name["mine-1"]["status"] == "ok"
    assert by_name["mine-1"]["data"]["result"] == "complete"
    assert by_name["mine-1"]["data"]["source"] == "request-main"
    assert by_name["b"]["status"] == "error"
    assert "image" in by_name["b"]["error"]
