"""The bytes of protocol 1 are frozen, both ways: a failure here is a change of the protocol."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.protocol import update_messages
from edge_agent.protocol.chunks import decode_chunk
from edge_agent.protocol.errors import DecodeError, ManifestError, UnsupportedVersionError
from edge_agent.protocol.feature_codec import ChannelRanges
from edge_agent.protocol.feature_message import decode_features
from edge_agent.protocol.frame_message import decode_frame
from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.manifest import deployment_id
from edge_agent.protocol.pack import decode_pack
from edge_agent.protocol.prediction_message import decode_prediction
from edge_agent.protocol.quantization import dequantize, quantize
from edge_agent.protocol.signature import SigningKey, TrustedKeys
from edge_agent.protocol.status import CoordinatorInfo, NodeInfo, NodeState, NodeTelemetry, decode_status
from edge_agent.protocol.topics import SiteTopics
from edge_agent.protocol.update_messages import decode_update, parse_rollback

FOLDER = Path(__file__).resolve().parent
KINDS = ("frames", "features", "channel_features", "packs", "predictions", "status", "heads", "updates")
STATUS = {kind.__name__: kind for kind in (NodeState, NodeInfo, NodeTelemetry, CoordinatorInfo)}


def load(kind: str) -> Any:
    return json.loads((FOLDER / f"{kind}.json").read_bytes())


def entries(kind: str, part: str) -> list[Any]:
    return [pytest.param(entry, id=entry["name"]) for entry in load(kind)[part]]


def described(kind: str, payload: bytes, message: dict[str, Any]) -> dict[str, Any]:
    """Decode `payload` and describe it as the golden files do."""
    if kind == "frames":
        frame = decode_frame(payload)
        height, width, channels = frame.image.shape
        return {
            "frame_id": frame.frame_id, "captured_at_us": frame.captured_at_us, "live": frame.live, "height": height,
            "width": width, "channels": channels, "pixels": frame.image.ravel().tolist(),
        }  # fmt: skip
    if kind == "features":
        m = decode_features(payload)
        return {
            "frame_id": m.frame_id, "encoding": m.values.dtype.name, "values": m.values.tolist(), "scale": m.scale,
            "zero_point": m.zero_point, "student_us": m.student_us, "agent_us": m.agent_us,
            "features": m.features.tolist(),
        }  # fmt: skip
    if kind == "channel_features":
        low, step = np.array(message["low"], np.float32), np.array(message["step"], np.float32)
        ranges = ChannelRanges(low, step, message["curve"] == "square")
        m = decode_features(payload).with_ranges(ranges, message["bits"])
        return {
            "frame_id": m.frame_id, "bits": m.bits, "deflate": m.deflate, "codes": m.values.tolist(),
            "low": message["low"], "step": message["step"], "curve": message["curve"],
            "student_us": m.student_us, "agent_us": m.agent_us,
            "features": m.features.tolist(),
        }  # fmt: skip
    if kind == "packs":
        return {"messages_hex": [one.hex() for one in decode_pack(payload)]}
    if kind == "predictions":
        return json.loads(decode_prediction(payload).encode())
    if kind == "updates":
        return {"kind": message["kind"], **described_update(payload, message["kind"])}
    return {"kind": message["kind"], **json.loads(decode_status(STATUS[message["kind"]], payload).encode())}


def described_update(payload: bytes, kind: str) -> dict[str, Any]:
    if kind == "Chunk":
        return {"content_hex": decode_chunk(payload).hex()}
    if kind == "RollbackOrder":
        return parse_rollback(payload).model_dump(by_alias=True)
    return json.loads(decode_update(getattr(update_messages, kind), payload).encode())


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_generator", FOLDER / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "heads"])
def test_frozen_bytes_decode_to_their_description(kind: str) -> None:
    for entry in load(kind)["vectors"]:
        found = described(kind, bytes.fromhex(entry["bytes_hex"]), entry["message"])
        assert found == entry["message"], entry["name"]


@pytest.mark.parametrize("kind", KINDS)
def test_descriptions_encode_to_their_frozen_bytes(generator: ModuleType, kind: str) -> None:
    for entry in load(kind)["vectors"]:
        assert generator.ENCODERS[kind](entry["message"]).hex() == entry["bytes_hex"], entry["name"]


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_refusals_are_refused_for_the_frozen_reason(kind: str) -> None:
    decoders = {
        "frames": decode_frame,
        "features": decode_features,
        "channel_features": decode_features,
        "packs": decode_pack,
        "predictions": decode_prediction,
        "status": lambda payload: decode_status(NodeState, payload),
        "updates": decode_chunk,
        "heads": lambda payload: MergeHead.from_bytes(payload, (1,), 2),
    }
    errors = {"version": UnsupportedVersionError, "decode": (DecodeError, ManifestError)}
    for entry in load(kind)["refused"]:
        with pytest.raises(errors[entry["error"]]):
            decoders[kind](bytes.fromhex(entry["bytes_hex"]))


@pytest.mark.parametrize("entry", entries("heads", "vectors"))
def test_frozen_heads_answer_as_frozen(entry: dict[str, Any]) -> None:
    message = entry["message"]
    head = MergeHead.from_bytes(bytes.fromhex(entry["bytes_hex"]), message["widths"], message["classes"])
    features = {int(student): np.array(f, np.float32) for student, f in message["features"].items()}
    logits, temperature = head.merge(features)
    assert logits.tolist() == entry["logits"]
    assert probabilities(logits, temperature).tolist() == pytest.approx(entry["probabilities"], abs=1e-6)


def test_frozen_topics_and_deployment_ids() -> None:
    golden = load("topics")
    site = SiteTopics(golden["site"])
    topics = golden["topics"]
    parsed = site.parse_feature(topics["feature"])
    assert site.feature(parsed.source, parsed.deployment, parsed.student, parsed.device) == topics["feature"]
    assert site.parse_leaf(topics["frame"], "frame") == ("cam-1", "")
    assert site.parse_leaf(topics["node telemetry"], "node") == ("pi-3", "telemetry")
    for text, name in golden["deployment_ids"].items():
        assert deployment_id(text.encode()) == name


def test_frozen_signatures_hold() -> None:
    keys = TrustedKeys([SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32))).public("")])
    way_back = next(entry for entry in load("updates")["vectors"] if entry["name"] == "desired, a way back")
    desired = decode_update(update_messages.DesiredMessage, bytes.fromhex(way_back["bytes_hex"]))
    assert desired.rollback is not None
    keys.verify("manifest", desired.manifest.raw, desired.manifest.signatures)
    keys.verify("rollback", desired.rollback.raw, desired.rollback.signatures)


def test_frozen_quantisation() -> None:
    for entry in load("quantization")["vectors"]:
        features = np.array(entry["features"], np.float32)
        values = quantize(features, entry["scale"], entry["zero_point"])
        assert values.tolist() == entry["values"]
        assert dequantize(values, entry["scale"], entry["zero_point"]).tolist() == entry["back"]


def test_the_generator_would_write_the_same_files(generator: ModuleType) -> None:
    written = generator.contents()
    assert set(written) == {path.name for path in FOLDER.glob("*.json")} - {"model_costs.json"}  # not of the protocol
    for name, content in written.items():
        assert content == (FOLDER / name).read_bytes(), name


def test_the_generator_does_not_overwrite_without_force(tmp_path: Path) -> None:
    for path in [*FOLDER.glob("*.json"), FOLDER / "generate.py"]:
        shutil.copy(path, tmp_path)
    frames = tmp_path / "frames.json"
    frames.write_text("{}")
    command = [sys.executable, str(tmp_path / "generate.py")]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: frames.json would change")
    assert frames.read_text() == "{}"
    subprocess.run([*command, "--force"], check=True, timeout=60)
    assert frames.read_bytes() == (FOLDER / "frames.json").read_bytes()
