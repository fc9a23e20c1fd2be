"""Every frame gets exactly one answer, the right one, and a missing student costs a deadline, not an answer."""

import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.quantization import dequantize
from edge_agent.runtimes import open_runtime

DEADLINE_MS = 300
FIRST_ID = 1_000_000


def random_images(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(8).integers(0, 256, (count, 8, 8, 1)).astype(np.uint8))


class Offline:
    """What the same artifacts answer without any network."""

    def __init__(self, tiny: Path) -> None:
        deployment = open_deployment(tiny)
        manifest = deployment.manifest
        self._head = MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, len(manifest.classes))
        self._runtimes = [open_runtime(tiny / student.artifacts[0].file, "tflite") for student in manifest.students]

    def answer(self, image: np.ndarray, present: list[int]) -> list[float]:
        features = {i: dequantize(self._runtimes[i].run(image), *self._runtimes[i].quantization) for i in present}
        return probabilities(*self._head.merge(features)).tolist()


@pytest.fixture(scope="module")
def offline(tiny: Path) -> Offline:
    return Offline(tiny)


def send(watcher: Any, images: list[np.ndarray], first_id: int, live: bool = False) -> list[dict[str, Any]]:
    """Send each image as one frame, wait for all answers, return them in order."""
    answers = watcher.topics.prediction("cam")
    for number, image in enumerate(images):
        watcher.publish(
            watcher.topics.frame("cam"), encode_frame(FrameMessage(first_id + number, 0, image, live)), qos=0
        )
    wanted = set(range(first_id, first_id + len(images)))

    def received() -> dict[int, dict[str, Any]]:
        found = [json.loads(message.payload) for message in watcher.on(answers)]
        return {answer["frame_id"]: answer for answer in found if answer["frame_id"] in wanted}

    watcher.until(lambda: len(received()) == len(images), f"{len(images)} answers")
    return [received()[frame_id] for frame_id in sorted(wanted)]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_every_frame_gets_one_answer_and_the_right_one(
    stage: Any, broker: Any, offline: Offline, protocol: str
) -> None:
    watcher = stage.watcher(broker.port, protocol)
    stage.agent(broker.port, "pi-1", "0,1", NONN_BROKER_PROTOCOL=protocol)
    stage.agent(broker.port, "pi-2", "2", NONN_BROKER_PROTOCOL=protocol)
    coordinator = stage.coordinator(broker.port, "--deadline-ms", "10000", NONN_BROKER_PROTOCOL=protocol)
    for text in ("pi-1 is online", "pi-2 is online"):
        coordinator.wait_for(text)
    watcher.until(lambda: "mqtt" in watcher.latest(watcher.topics.node("pi-2", "info")), "info of pi-2")
    assert watcher.latest(watcher.topics.node("pi-2", "info"))["mqtt"] == protocol
    images = random_images(40)
    answers = send(watcher, images, FIRST_ID)
    send(watcher, images[:3], FIRST_ID)  # a sender that repeats itself
    watcher.listen(0.5)
    for image, answer in zip(images, answers, strict=True):
        assert answer["result"] == "complete"
        assert answer["present"] == [0, 1, 2]
        assert answer["probabilities"] == pytest.approx(offline.answer(image, [0, 1, 2]), abs=1e-4)
        assert answer["class_index"] == int(np.argmax(answer["probabilities"]))
        parts = answer["latency_ms"]
        assert sum(parts[name] for name in ("student", "queue", "transport", "merge")) == pytest.approx(parts["total"])
    given = watcher.on(watcher.topics.prediction("cam"))
    counts = Counter(json.loads(message.payload)["frame_id"] for message in given)
    # What was sent again is answered again, byte for byte as before.
    assert counts == {FIRST_ID + number: 2 if number < 3 else 1 for number in range(len(images))}
    assert len({message.payload for message in given}) == len(images)
    assert not any(message.retain for message in watcher.on(watcher.topics.prediction("cam")))


def test_a_killed_agent_costs_its_features_until_it_is_back(stage: Any, broker: Any, offline: Offline) -> None:
    watcher = stage.watcher(broker.port)
    stage.agent(broker.port, "pi-1", "0,1")
    victim = stage.agent(broker.port, "pi-2", "2")
    coordinator = stage.coordinator(broker.port, "--deadline-ms", str(DEADLINE_MS))
    for text in ("pi-1 is online", "pi-2 is online"):
        coordinator.wait_for(text)
    images = random_images(4)
    send(watcher, images, FIRST_ID)  # warm

    # The device hangs: nobody knows, frames wait until the deadline, and no longer.
    victim.child.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    answers = send(watcher, images, FIRST_ID + 100)
    assert time.monotonic() - started < DEADLINE_MS / 1000 + 5
    for image, answer in zip(images, answers, strict=True):
        assert (answer["result"], answer["present"], answer["missing"]) == ("degraded", [0, 1], [2])
        assert answer["probabilities"] == pytest.approx(offline.answer(image, [0, 1]), abs=1e-4)
        assert answer["latency_ms"]["total"] >= DEADLINE_MS

    # The device is gone: still one right answer each, at the deadline or sooner.
    victim.end(signal.SIGKILL)
    watcher.until_state(watcher.topics.node("pi-2", "state"), "offline")
    for image, answer in zip(images, send(watcher, images, FIRST_ID + 200), strict=True):
        assert (answer["result"], answer["missing"]) == ("degraded", [2])
        assert answer["probabilities"] == pytest.approx(offline.answer(image, [0, 1]), abs=1e-4)

    # Back, without anyone telling the coordinator.
    stage.agent(broker.port, "pi-2", "2")
    watcher.until_state(watcher.topics.node("pi-2", "state"), "online")
    watcher.listen(0.2)
    for image, answer in zip(images, send(watcher, images, FIRST_ID + 300), strict=True):
        assert answer["result"] == "complete"
        assert answer["probabilities"] == pytest.approx(offline.answer(image, [0, 1, 2]), abs=1e-4)


def test_classify_does_not_wait_for_a_device_that_is_known_to_be_off(stage: Any, broker: Any) -> None:
    watcher = stage.watcher(broker.port)
    stage.coordinator(broker.port).wait_for("connected to")
    stage.agent(broker.port, "pi-1", "0,1")
    victim = stage.agent(broker.port, "pi-2", "2")
    for name in ("pi-1", "pi-2"):
        watcher.until_state(watcher.topics.node(name, "state"), "online")
    victim.end(signal.SIGKILL)
    watcher.until_state(watcher.topics.node("pi-2", "state"), "offline")
    # A wait of minutes, were it waited for.
    client = stage.program("coordinator.cli", broker.port, "classify", "--wait", "600", str(stage.image()))
    assert client.child.wait(60) == 0, client.output
    assert "(without student 2)" in client.output


def test_classify_answers_with_what_there_is_when_its_wait_is_over(stage: Any, broker: Any) -> None:
    stage.coordinator(broker.port).wait_for("connected to")
    stage.agent(broker.port, "pi-1", "1").wait_for("connected to")
    client = stage.program("coordinator.cli", broker.port, "classify", "--wait", "2", str(stage.image()))
    assert client.child.wait(60) == 0, client.output
    assert "(without students 0, 2)" in client.output


def test_too_few_students_are_said_to_be_too_few(stage: Any, broker: Any) -> None:
    watcher = stage.watcher(broker.port)
    stage.coordinator(broker.port, "--deadline-ms", "100").wait_for("connected to")
    (answer,) = send(watcher, random_images(1), FIRST_ID)
    assert answer["result"] == "abandoned"
    assert answer["class_index"] is None
    assert answer["missing"] == [0, 1, 2]
