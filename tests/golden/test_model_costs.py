"""What each shipped deployment costs a device: frozen, so that no change makes one dearer unseen.

`python tests/golden/test_model_costs.py` writes model_costs.json anew, for a deployment that changed on purpose.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.inference import feature_message
from edge_agent.protocol.feature_message import encode_features
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.runtimes import open_runtime
from edge_agent.runtimes.arena import arena_bytes

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = Path(__file__).with_name("model_costs.json")
DEPLOYMENTS = sorted(path.parent for path in (ROOT / "docs" / "examples").glob("*/manifest.json"))


def costs(folder: Path) -> dict[str, Any]:
    """Per student: parameters, multiply-accumulates, bytes of artifacts, tensor arena, frame and features."""
    manifest = open_deployment(folder).manifest
    shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
    frame = encode_frame(FrameMessage(1, 0, np.zeros(shape, np.uint8)))
    students = []
    for student in manifest.students:
        artifacts = {}
        for artifact in student.artifacts:
            if artifact.engine != "tflite":
                continue
            path = folder / artifact.file
            artifacts[artifact.file] = {
                "bytes": path.stat().st_size, "arena_bytes": arena_bytes(path, open_runtime(path, "tflite", 1)),
            }  # fmt: skip
        features = encode_features(feature_message(1, np.zeros(student.width, np.int8), (0.1, 0), student.codec, 1, 1))
        students.append({
            "network": student.network, "parameters": student.parameters, "macs": student.macs, "width": student.width,
            "artifacts": artifacts, "frame_bytes": len(frame), "feature_bytes": len(features),
        })  # fmt: skip
    head = manifest.head
    return {"students": students, "head_bytes": head.size_bytes, "golden_input_bytes": manifest.golden_input.size_bytes}


@pytest.mark.parametrize("folder", DEPLOYMENTS, ids=lambda path: path.name)
def test_a_shipped_deployment_costs_what_it_did(folder: Path) -> None:
    assert costs(folder) == json.loads(GOLDEN.read_text())[folder.name]


def test_every_row_is_of_a_deployment_that_is_shipped() -> None:
    assert sorted(json.loads(GOLDEN.read_text())) == [path.name for path in DEPLOYMENTS]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({path.name: costs(path) for path in DEPLOYMENTS}, indent=1) + "\n")
