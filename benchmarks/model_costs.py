"""What each shipped deployment costs a device: the golden table of tests/golden/model_costs.json.

    python benchmarks/model_costs.py [DEPLOYMENT ...] [--golden]

Opens every student of docs/examples (or of the deployments named): parameters, multiply-accumulates, bytes of the
artifact, of the tensor arena, of a frame to the device and of its features back. --golden writes the table that
tests/golden/test_model_costs.py holds everything to, for a deployment that changed on purpose. Prints Markdown.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.inference import feature_message
from edge_agent.protocol.feature_message import encode_features
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.runtimes import open_runtime
from edge_agent.runtimes.arena import arena_bytes

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "model_costs.json"
DEPLOYMENTS = sorted(path.parent for path in (ROOT / "docs" / "examples").glob("*/manifest.json"))


def main() -> int:
    """Print the table, or write the golden one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deployments", nargs="*", type=Path, default=DEPLOYMENTS, metavar="DEPLOYMENT")
    parser.add_argument("--golden", action="store_true")
    arguments = parser.parse_args()
    found = {path.name: costs(path) for path in arguments.deployments}
    if arguments.golden:
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    return 0


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


def table(found: Mapping[str, dict[str, Any]]) -> str:
    """Markdown: a row for each artifact."""
    titles = (
        "deployment", "artifact", "network", "parameters", "multiply-accumulates", "artifact, bytes", "arena, bytes",
        "frame to it, bytes", "features back, bytes",
    )  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for name, deployment in found.items():
        for student in deployment["students"]:
            for file, size in student["artifacts"].items():
                arena = "not known" if size["arena_bytes"] is None else f"{size['arena_bytes']:,}"
                lines.append(
                    f"| {name} | {file} | {student['network']}, {student['width']} features "
                    f"| {student['parameters']:,} | {student['macs']:,} | {size['bytes']:,} | {arena} "
                    f"| {student['frame_bytes']:,} | {student['feature_bytes']} |"
                )
    heads = ", ".join(f"{deployment['head_bytes']:,}" for deployment in found.values())
    return "\n".join([*lines, "", f"Heads on the coordinator: {heads} bytes. Exact counts: n = 1 is all there is."])


if __name__ == "__main__":
    sys.exit(main())
