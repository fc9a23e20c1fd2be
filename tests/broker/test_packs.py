"""Packs through a real broker: asked for by nobody but a source with many frames, and never a different answer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.frame_client import FrameClient
from coordinator.settings import ClientSettings
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.feature_message import decode_features
from edge_agent.protocol.frame_message import decode_frame
from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.pack import decode_pack, is_pack
from edge_agent.protocol.quantization import dequantize
from edge_agent.protocol.status import NodeInfo, NodeState, StudentInfo
from edge_agent.runtimes import open_runtime

FRAMES, WINDOW = 200, 32


@pytest.fixture(params=["own", "paho"])
def site(request: Any, stage: Any, broker: Any) -> Any:
    """Two agents and a coordinator on one client library; a watcher."""
    client = {"NONN_BROKER_CLIENT": request.param}
    watcher = stage.watcher(broker.port)
    stage.agent(broker.port, "pi-1", "0,1", **client)
    stage.agent(broker.port, "pi-2", "2", **client)
    coordinator = stage.coordinator(broker.port, "--deadline-ms", "10000", **client)
    for text in ("pi-1 is online", "pi-2 is online"):
        coordinator.wait_for(text)
    return watcher


def classify(site: Any, port: int, source: str, window: int) -> tuple[list[np.ndarray], dict[int, Any]]:
    """Send images as a client does; the answers by image, all complete."""
    settings = ClientSettings.model_validate({"site": site.topics.root.split("/")[-1], "broker": {"port": port}})
    images = list(np.random.default_rng(3).integers(0, 256, (FRAMES, 8, 8, 1)).astype(np.uint8))
    client = FrameClient(settings, source)
    client.wait_for_site(30)
    client.measure_features()
    answers = {answer.index: answer.prediction for answer in client.classify(images, window)}
    assert len(client.wire_bytes["frame"]) == len(client.wire_bytes["prediction"]) == FRAMES
    client.close()
    assert len(answers) == FRAMES
    assert client.repeated_answers == 0
    assert {answer.result for answer in answers.values()} == {"complete"}
    return images, answers


def test_many_frames_in_flight_travel_in_packs_and_are_answered_the_same(site: Any, broker: Any, tiny: Path) -> None:
    images, packed = classify(site, broker.port, "files", WINDOW)
    _, alone = classify(site, broker.port, "alone", 1)
    for number in range(FRAMES):
        assert packed[number].probabilities == alone[number].probabilities
    deployment = open_deployment(tiny)
    manifest = deployment.manifest
    head = MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, len(manifest.classes))
    runtimes = [open_runtime(tiny / student.artifacts[0].file, "tflite") for student in manifest.students]
    for number in (0, FRAMES - 1):
        features = {i: dequantize(r.run(images[number]), *r.quantization) for i, r in enumerate(runtimes)}
        assert packed[number].probabilities == pytest.approx(probabilities(*head.merge(features)), abs=1e-6)

    def carried(topic: str) -> tuple[int, int]:
        payloads = [message.payload for message in site.on(topic)]
        return len(payloads), sum(len(decode_pack(payload)) for payload in payloads)

    topics, student = site.topics, (manifest.students[2].index, "pi-2")
    for source, most_messages in (("files", FRAMES // 2), ("alone", FRAMES)):
        for topic in (topics.frame(source), topics.prediction(source), topics.feature(source, deployment.id, *student)):
            site.until(lambda topic=topic: carried(topic)[1] >= FRAMES, f"all of {topic}")
            messages, frames = carried(topic)
            assert frames == FRAMES
            assert messages <= most_messages
    assert not any(is_pack(message.payload) for message in site.on(topics.prediction("alone")))
    ids = [
        decode_frame(one).frame_id for message in site.on(topics.frame("files")) for one in decode_pack(message.payload)
    ]
    seen = [
        decode_features(one).frame_id
        for message in site.on(topics.feature("files", deployment.id, *student))
        for one in decode_pack(message.payload)
    ]
    assert ids == seen == sorted(ids)


def test_with_an_older_device_on_the_site_nobody_sends_packs(site: Any, broker: Any) -> None:
    student = StudentInfo(
        student=2, network="n", engine="e", precision="int8", artifact="a", width=8, selftest_error=0.0
    )
    older = NodeInfo(
        session=7, agent_version="0", deployment="0" * 16, students=(student,), machine="aarch64", python="3.11.2"
    )
    site.publish(site.topics.node("pi-older", "info"), older.encode(), retain=True)
    site.publish(site.topics.node("pi-older", "state"), NodeState(state="online", session=7).encode(), retain=True)
    site.until_state(site.topics.node("pi-older", "state"), "online")
    classify(site, broker.port, "files", WINDOW)
    site.until(lambda: len(site.on(site.topics.prediction("files"))) >= FRAMES, "all answers")
    assert len(site.on(site.topics.frame("files"))) == FRAMES
    for leaf in ("state", "info"):
        site.publish(site.topics.node("pi-older", leaf), b"", retain=True)
