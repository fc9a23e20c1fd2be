"""Features as int4 codes, ranges in the manifest: agents and coordinator agree with the offline merge."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.inference import feature_message, real_features
from edge_agent.protocol.feature_calibration import calibrate_ranges
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.manifest import Codec, CodecRanges
from edge_agent.runtimes import open_runtime

CHANNELS_HEADER_BYTES = 20


def images(count: int, seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1)).astype(np.uint8))


@pytest.fixture(scope="module")
def coded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> DeploymentDirectory:
    """The tiny deployment with int4 codes for students 0 and 1, and int8 codes, perhaps deflated, for student 2."""
    folder = tmp_path_factory.mktemp("coded") / "d"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns(".engine-choice-*"))
    manifest = open_deployment(folder).manifest
    students = []
    for student in manifest.students:
        runtime = open_runtime(folder / student.artifacts[0].file, "tflite")
        seen = np.stack([real_features(runtime.run(image), runtime.quantization) for image in images(50, seed=1)])
        bits = 4 if student.index < 2 else 8
        ranges = calibrate_ranges(seen, bits)
        codec = Codec.model_validate({
            "encoding": f"int{bits}", "deflate": student.index == 2,
            "ranges": CodecRanges(low=tuple(ranges.low.tolist()), step=tuple(ranges.step.tolist())),
        })  # fmt: skip
        students.append(student.model_copy(update={"codec": codec}))
    changed = manifest.model_copy(update={"students": tuple(students), "schema_": 2})
    (folder / "manifest.json").write_bytes(changed.to_bytes())
    return open_deployment(folder)


def offline_answer(deployment: DeploymentDirectory, image: np.ndarray) -> list[float]:
    manifest = deployment.manifest
    head = MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, len(manifest.classes))
    features = {}
    for student in manifest.students:
        runtime = open_runtime(deployment.path / student.artifacts[0].file, "tflite")
        message = feature_message(0, runtime.run(image), runtime.quantization, student.codec, 0, 0)
        features[student.index] = message.features
    return list(probabilities(*head.merge(features)).tolist())


def test_codes_travel_and_answers_are_the_offline_ones(stage: Any, broker: Any, coded: DeploymentDirectory) -> None:
    watcher = stage.watcher(broker.port)
    folder = ("--deployment", str(coded.path))
    stage.agent(broker.port, "pi-1", "0,1", *folder)
    stage.agent(broker.port, "pi-2", "2", *folder)
    coordinator = stage.coordinator(broker.port, "--deadline-ms", "10000", *folder)
    for text in ("pi-1 is online", "pi-2 is online"):
        coordinator.wait_for(text)
    pictures = images(12, seed=8)
    for number, image in enumerate(pictures):
        watcher.publish(watcher.topics.frame("cam"), encode_frame(FrameMessage(1000 + number, 0, image)), qos=0)
    answers = watcher.topics.prediction("cam")
    watcher.until(lambda: len(watcher.on(answers)) == len(pictures), "an answer for each")
    for message in watcher.on(answers):
        answer = json.loads(message.payload)
        assert answer["result"] == "complete"
        expected = offline_answer(coded, pictures[answer["frame_id"] - 1000])
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-4)
    widths = coded.manifest.widths
    for index, device in ((0, "pi-1"), (1, "pi-1"), (2, "pi-2")):
        sent = watcher.on(watcher.topics.feature("cam", coded.id, index, device))
        assert len(sent) == len(pictures)
        raw_bytes = (widths[index] + 1) // 2 if index < 2 else widths[index]
        assert all(message.payload[0] == 2 for message in sent)
        assert all(len(message.payload) <= CHANNELS_HEADER_BYTES + raw_bytes for message in sent)
