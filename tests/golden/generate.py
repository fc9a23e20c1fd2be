"""Writes the golden vectors: python tests/golden/generate.py. Frozen: existing files change only with --force.

Each file holds `vectors` (a message as plain JSON and its bytes in hex) and `refused` (bytes that every receiver must
refuse, and why). A change of these files is a change of the protocol: docs/protocol.md, section 12.
"""

import argparse
import base64
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.protocol.chunks import encode_chunk
from edge_agent.protocol.feature_codec import ChannelRanges, dequantize_channels
from edge_agent.protocol.feature_message import FeatureMessage, encode_features
from edge_agent.protocol.frame_message import MAX_FRAME_ID, FrameMessage, encode_frame
from edge_agent.protocol.head import MergeHead, SubsetHead, probabilities
from edge_agent.protocol.manifest import deployment_id
from edge_agent.protocol.pack import encode_pack
from edge_agent.protocol.prediction_message import PredictionMessage
from edge_agent.protocol.quantization import dequantize, quantize
from edge_agent.protocol.status import CoordinatorInfo, NodeInfo, NodeState, NodeTelemetry
from edge_agent.protocol.topics import SiteTopics
from edge_agent.protocol.update_messages import (
    ChunkRequest,
    DeployReply,
    DeployRequest,
    DesiredMessage,
    NodeUpdate,
    RollbackOrder,
    RolloutStatus,
    SwitchMessage,
)

FOLDER = Path(__file__).resolve().parent
Vector = dict[str, Any]
DEPLOYMENT = "0123456789abcdef"
ZERO_KEY = "139e3940e64b5491"
MANIFEST_SIGNATURE = "Xijq2mnliXAHuFdLcftckL4/z64ZMVXknPLsjWJJ9fwd9uzt7ahNs2nyrZJHhQT7C9f6XZe+AX2jcKN8wcJBDA=="
ROLLBACK_SIGNATURE = "nGMjAZFh5g6JMdYRUAJN1RQ2uo7fR7LX0FHzoqLWVPaKht2mmxke2agIGSzsAmcH306dDfXgPY20DeiG9AtpBA=="
TEXTS = {
    "frames": "Frame messages, layout of section 3; `pixels` row by row, channels innermost.",
    "features": "Feature messages, layout of section 4; `features` are the real numbers that the values stand for.",
    "channel_features": "Feature messages of version 2, section 4; `features` by the `low` and `step` of the manifest.",
    "predictions": "Answers, section 5.",
    "packs": "Packs, section 5a; `messages_hex` in their order.",
    "status": "States, infos and telemetry, section 6.",
    "heads": "Head files, section 9, and what they answer.",
    "topics": "Topics, section 2.",
    "updates": "Messages of updates, section 13. Signed by the Ed25519 key whose 32 private bytes are all zero.",
    "quantization": "int8 quantisation, section 8: features <-> values.",
}


def frame_of(message: Vector) -> FrameMessage:
    shape = (message["height"], message["width"], message["channels"])
    image = np.array(message["pixels"], np.uint8).reshape(shape)
    return FrameMessage(message["frame_id"], message["captured_at_us"], image, message["live"])


def features_of(message: Vector) -> FeatureMessage:
    values = np.array(message["values"], {"int8": np.int8, "float32": np.float32}[message["encoding"]])
    return FeatureMessage(
        message["frame_id"], values, message["student_us"], message["agent_us"], message["scale"], message["zero_point"]
    )


def channel_features_of(message: Vector) -> FeatureMessage:
    low, step = np.array(message["low"], np.float32), np.array(message["step"], np.float32)
    ranges = ChannelRanges(low, step, message["curve"] == "square")
    return FeatureMessage(
        message["frame_id"], np.array(message["codes"], np.uint8), message["student_us"], message["agent_us"],
        bits=message["bits"], deflate=message["deflate"], ranges=ranges,
    )  # fmt: skip


def status_of(message: Vector) -> NodeState | NodeInfo | NodeTelemetry | CoordinatorInfo:
    kinds = {kind.__name__: kind for kind in (NodeState, NodeInfo, NodeTelemetry, CoordinatorInfo)}
    content = {key: value for key, value in message.items() if key != "kind"}
    return kinds[message["kind"]].model_validate_json(json.dumps(content))


def update_of(message: Vector) -> bytes:
    content = {key: value for key, value in message.items() if key != "kind"}
    if message["kind"] == "Chunk":
        return encode_chunk(bytes.fromhex(content["content_hex"]))
    if message["kind"] == "RollbackOrder":
        return RollbackOrder.model_validate_json(json.dumps(content)).to_bytes()
    known = (ChunkRequest, DeployReply, DeployRequest, DesiredMessage, NodeUpdate, RolloutStatus, SwitchMessage)
    kinds: dict[str, Any] = {kind.__name__: kind for kind in known}
    encoded: bytes = kinds[message["kind"]].model_validate_json(json.dumps(content)).encode()
    return encoded


def head_of(message: Vector) -> MergeHead:
    heads = {
        int(mask): SubsetHead(np.array(h["weights"], np.float32), np.array(h["bias"], np.float32), h["temperature"])
        for mask, h in message["heads"].items()
    }
    return MergeHead(tuple(message["widths"]), message["classes"], heads, np.array(message["mean"], np.float32))


def pack_of(message: Vector) -> bytes:
    return encode_pack([bytes.fromhex(one) for one in message["messages_hex"]])


ENCODERS: dict[str, Callable[[Vector], bytes]] = {
    "frames": lambda message: encode_frame(frame_of(message)),
    "features": lambda message: encode_features(features_of(message)),
    "channel_features": lambda message: encode_features(channel_features_of(message)),
    "packs": pack_of,
    "predictions": lambda message: PredictionMessage.model_validate_json(json.dumps(message)).encode(),
    "status": lambda message: status_of(message).encode(),
    "heads": lambda message: head_of(message).to_bytes(),
    "updates": update_of,
}


def frame(frame_id: int, pixels: list[int], shape: tuple[int, int, int], live: bool = False, at: int = 0) -> Vector:
    height, width, channels = shape
    return {
        "frame_id": frame_id, "captured_at_us": at, "live": live, "height": height, "width": width,
        "channels": channels, "pixels": pixels,
    }  # fmt: skip


def feature(frame_id: int, values: list[float], scale: float = 0.0, zero_point: int = 0, us: int = 150) -> Vector:
    encoding = "int8" if scale else "float32"
    array = np.array(values, np.int8 if scale else np.float32)
    real = dequantize(array.astype(np.int8), scale, zero_point) if scale else array
    return {
        "frame_id": frame_id, "encoding": encoding, "values": array.tolist(), "scale": scale, "zero_point": zero_point,
        "student_us": us, "agent_us": us * 2 if us < 2**31 else 2**32 - 1, "features": real.tolist(),
    }  # fmt: skip


def codes(
    frame_id: int, values: list[int], bits: int, *, deflate: bool = False, us: int = 150, curve: str = "linear"
) -> Vector:
    low, step = [-0.5 * (i % 3) for i in range(len(values))], [0.25 * (1 + i % 5) for i in range(len(values))]
    ranges = ChannelRanges(np.array(low, np.float32), np.array(step, np.float32), curve == "square")
    return {
        "frame_id": frame_id, "bits": bits, "deflate": deflate, "codes": values, "low": low, "step": step,
        "curve": curve,
        "student_us": us, "agent_us": us * 2 if us < 2**31 else 2**32 - 1,
        "features": dequantize_channels(np.array(values, np.uint8), ranges).tolist(),
    }  # fmt: skip


def prediction(result: str, present: list[int], missing: list[int], **more: Any) -> Vector:
    return {
        "v": 1, "frame_id": 1795372800000000, "source": "cam-1", "coordinator": "main", "deployment": DEPLOYMENT,
        "result": result, "class_index": None, "class_name": None, "probabilities": [], "present": present,
        "missing": missing,
        "latency_ms": {"total": 7.5, "student": 4.0, "queue": 0.5, "transport": 2.75, "merge": 0.25},
        **more,
    }  # fmt: skip


def update_messages() -> dict[str, Vector]:
    other, rollout = "fedcba9876543210", 1795372800000000
    order = {
        "kind": "RollbackOrder", "schema": 1, "deployment": other, "undoes_version": 2, "serial": rollout,
        "expires": 1795459200,
    }  # fmt: skip
    # Signatures by that key over the contents in base64; the first is of a manifest that is nothing but {}.
    manifest = {"content": "e30=", "signatures": [{"key_id": ZERO_KEY, "signature": MANIFEST_SIGNATURE}]}
    rollback = {
        "content": base64.b64encode(update_of(order)).decode(),
        "signatures": [{"key_id": ZERO_KEY, "signature": ROLLBACK_SIGNATURE}],
    }
    device = {
        "kind": "NodeUpdate",
        "v": 1,
        "rollout": rollout,
        "installed": DEPLOYMENT,
        "target": other,
        "shadow": False,
    }
    wishes = {"canary_frames": 100, "min_agreement": 0.9, "max_latency_ratio": 1.5, "timeout_s": 300.0}
    status = {
        "kind": "RolloutStatus", "v": 1, "rollout": rollout, "active": DEPLOYMENT, "active_version": 1,
        "target": other, "progress": 0.0, "error": "",
    }  # fmt: skip
    switch = {"kind": "SwitchMessage", "v": 1, "rollout": rollout, "deployment": other, "previous": DEPLOYMENT}
    return {
        "chunk": {"kind": "Chunk", "content_hex": "00010203fdfeff"},
        "request for chunks": {
            "kind": "ChunkRequest", "v": 1, "device": "pi-3", "sha256": "ab" * 32, "chunks": [0, 1, 65535],
        },
        "rollback order": order,
        "desired": {"kind": "DesiredMessage", "v": 1, "rollout": rollout, "server": "main", "manifest": manifest},
        "desired by a canary alone": {
            "kind": "DesiredMessage", "v": 1, "rollout": rollout, "server": "main", "manifest": manifest,
            "canaries": ["pi-3"],
        },
        "desired, a way back": {
            "kind": "DesiredMessage", "v": 1, "rollout": rollout, "server": "main", "manifest": manifest,
            "rollback": rollback,
        },
        "switch": {**switch, "complete": False, "from_frames": {"cam-1": 1795372801000000}, "reason": ""},
        "switch, complete": {**switch, "complete": True, "from_frames": {}, "reason": ""},
        "device downloads": {**device, "state": "downloading", "progress": 0.25, "students": [], "error": ""},
        "device is ready in shadow": {
            **device, "state": "ready", "progress": 1.0, "students": [0, 2], "shadow": True, "error": "",
        },
        "device went back": {
            **device, "state": "rolled_back", "progress": 1.0, "students": [0], "error": "the agent ended 3 times",
        },
        "deploy": {
            "kind": "DeployRequest", "v": 1, "transaction": "deploy-1", "server": "deploy-1", "manifest": manifest,
            "canaries": ["pi-3"], **wishes,
        },
        "deploy, taken up": {
            "kind": "DeployReply", "v": 1, "transaction": "deploy-1", "status": "ok", "rollout": 0, "error": "",
        },
        "rollout waits": {**status, "phase": "preparing", "waiting_for": [1]},
        "rollout compares": {
            **status, "phase": "canary", "waiting_for": [],
            "canary": {
                "frames": 40, "agreement": 0.975, "latency_ratio": 1.25, "old_ms_p95": 40.0, "new_ms_p95": 50.0,
            },
        },
    }  # fmt: skip


def messages() -> dict[str, dict[str, Vector]]:
    cat = {"class_index": 1, "class_name": "cat", "probabilities": [0.25, 0.75]}
    subset = {"weights": [[1.0, -1.0]], "bias": [0.5, 0.0], "temperature": 2.0}
    full = {"weights": [[1.0, -1.0], [0.5, 0.25], [0.0, 2.0]], "bias": [0.0, 0.5], "temperature": 1.0}
    session = {"session": 1795372800000000}
    student = {
        "student": 0, "network": "wrn-16-1", "engine": "ai-edge-litert 2.1.6", "precision": "int8",
        "artifact": "student-0.int8.tflite", "width": 128, "selftest_error": 0.0,
    }  # fmt: skip
    load = {
        **session, "uptime_s": 12.5, "cpu_percent": 35.0, "memory_rss_bytes": 60000000,
        "memory_available_bytes": 400000000, "frames_received": 10, "frames_answered": 9, "frames_dropped": 1,
        "messages_refused": 0, "queue_length": 0,
    }  # fmt: skip
    return {
        "frames": {
            "one grey pixel": frame(0, [255], (1, 1, 1)),
            "2 x 3 grey, live": frame(7, [0, 1, 2, 253, 254, 255], (2, 3, 1), live=True, at=1795372800123456),
            "1 x 2 colour, red then blue": frame(256, [255, 0, 0, 0, 0, 255], (1, 2, 3)),
            "largest numbers": frame(MAX_FRAME_ID, [9], (1, 1, 1), live=True, at=2**64 - 1),
        },
        "features": {
            "int8, zero_point -128": feature(1795372800000000, [-128, -127, 0, 127], 0.5, -128),
            "int8, zero_point 5": feature(0, [5, -128, 127], 0.0625, 5),
            "int8, one feature, largest numbers": feature(MAX_FRAME_ID, [127], 4096.0, 127, us=2**32 - 1),
            "float32": feature(1, [0.0, 0.5, 1.25, 1048576.0]),
            "float32, no time measured": feature(2, [3.0], us=0),
        },
        "channel_features": {
            "int8": codes(1795372800000000, [0, 1, 128, 255], 8),
            "int8, one feature, largest numbers": codes(MAX_FRAME_ID, [255], 8, us=2**32 - 1),
            "int4, even width": codes(0, [0, 15, 7, 8], 4),
            "int4, odd width, no time measured": codes(2, [1, 2, 3], 4, us=0),
            "int4, squares": codes(4, [0, 1, 2, 7, 15], 4, curve="square"),
            "int4, deflated": codes(3, [0] * 64, 4, deflate=True),
        },
        "predictions": {
            "complete": prediction("complete", [0, 1, 2], [], **cat),
            "degraded": prediction("degraded", [0, 2], [1], **cat),
            "abandoned": prediction("abandoned", [1], [0, 2], frame_id=0),
            "class name beyond ASCII": prediction("complete", [0], [], **{**cat, "class_name": "Kätzchen 🐈"}),
        },
        "packs": {
            "two, of one and three bytes": {"messages_hex": ["01", "7b7d20"]},
            "64 alike": {"messages_hex": ["017f"] * 64},
        },
        "status": {
            "birth": {"kind": "NodeState", "v": 1, "state": "online", **session},
            "will": {"kind": "NodeState", "v": 1, "state": "offline", **session},
            "device": {
                "kind": "NodeInfo", "v": 1, **session, "agent_version": "0.1.0", "deployment": DEPLOYMENT,
                "students": [student, {**student, "student": 1}], "machine": "aarch64", "python": "3.11.2", "mqtt": "5",
            },
            "device without students": {
                "kind": "NodeInfo", "v": 1, **session, "agent_version": "0.1.0", "deployment": "",
                "students": [], "machine": "aarch64", "python": "3.11.2", "mqtt": "3.1.1",
            },
            "telemetry without sensors": {"kind": "NodeTelemetry", "v": 1, **load},
            "telemetry of a Pi": {
                "kind": "NodeTelemetry", "v": 1, **load, "temperature_c": 61.2, "throttled": False, "power_w": 3.4,
                "student_ms_p50": 41.5, "student_ms_p95": 44.25,
            },
            "coordinator": {
                "kind": "CoordinatorInfo", "v": 1, **session, "coordinator_version": "0.1.0", "deployment": DEPLOYMENT,
                "deployment_name": "pets", "classes": ["cat", "dog"], "height": 32, "width": 32, "channels": 3,
                "students": 2, "deadline_ms": 500.0,
            },
            "device that reads packs": {
                "kind": "NodeInfo", "v": 1, **session, "agent_version": "0.1.0", "deployment": DEPLOYMENT,
                "students": [student], "machine": "aarch64", "python": "3.11.2", "mqtt": "5", "packs": 1,
            },
        },
        "heads": {
            "one student": {
                "widths": [1], "classes": 2, "mean": [0.0], "heads": {"1": subset}, "features": {"0": [3.0]},
            },
            "two students, both there": {
                "widths": [1, 2], "classes": 2, "mean": [0.0, 1.0, 2.0], "heads": {"1": subset, "3": full},
                "features": {"0": [1.0], "1": [2.0, 3.0]},
            },
            "two students, the second missing, own head": {
                "widths": [1, 2], "classes": 2, "mean": [0.0, 1.0, 2.0], "heads": {"1": subset, "3": full},
                "features": {"0": [1.0]},
            },
            "two students, the first missing, filled with the mean": {
                "widths": [1, 2], "classes": 2, "mean": [4.0, 1.0, 2.0], "heads": {"3": full},
                "features": {"1": [2.0, 3.0]},
            },
        },
        "updates": update_messages(),
    }  # fmt: skip


def refused() -> dict[str, dict[str, tuple[bytes, str]]]:
    good_frame = encode_frame(frame_of(frame(1, [1, 2], (1, 2, 1))))
    good_features = encode_features(features_of(feature(1, [1, 2], 0.5, 0)))
    good_floats = encode_features(features_of(feature(1, [1.0])))
    good_codes = encode_features(channel_features_of(codes(1, [1, 2, 3], 4)))
    deflated = encode_features(channel_features_of(codes(1, [0] * 64, 4, deflate=True)))
    good_chunk = encode_chunk(b"content")
    good_pack = encode_pack([b"\x01a", b"\x01bc"])
    zeros = bytes.fromhex("edc13101000000c2a0f54f6d0c1fa000000080b701")  # 4000 of them, deflated

    def patched(content: bytes, offset: int, change: bytes) -> bytes:
        return content[:offset] + change + content[offset + len(change) :]

    return {
        "packs": {
            "header cut": (good_pack[:3], "decode"),
            "lengths cut": (good_pack[:11], "decode"),
            "version 2": (patched(good_pack, 1, b"\x02"), "version"),
            "no messages": (bytes.fromhex("80010000"), "decode"),
            "one message": (bytes.fromhex("800101000100000001"), "decode"),
            "65 messages": (bytes.fromhex("80014100" + "01000000" * 65 + "01" * 65), "decode"),
            "one byte short": (good_pack[:-1], "decode"),
            "one byte more": (good_pack + b"\0", "decode"),
            "an empty message": (bytes.fromhex("80010200010000000000000001"), "decode"),
            "a pack in a pack": (bytes.fromhex("8001020001000000010000008001"), "decode"),
            "lengths beyond 2**32 together": (bytes.fromhex("80010200ffffffffffffffff01"), "decode"),
        },
        "frames": {
            "empty": (b"", "decode"),
            "version 2": (patched(good_frame, 0, b"\x02"), "version"),
            "version 0, one byte": (b"\0", "version"),
            "header cut": (good_frame[:23], "decode"),
            "one pixel short": (good_frame[:-1], "decode"),
            "one byte more": (good_frame + b"\0", "decode"),
            "encoding 1": (patched(good_frame, 1, b"\x01"), "decode"),
            "2 channels": (patched(good_frame, 2, b"\x02"), "decode"),
            "unknown flag": (patched(good_frame, 3, b"\x02"), "decode"),
            "no rows": (patched(good_frame, 4, b"\0\0"), "decode"),
            "1025 columns": (patched(good_frame, 6, struct.pack("<H", 1025)), "decode"),
            "frame_id 2**53": (patched(good_frame, 8, struct.pack("<Q", 2**53)), "decode"),
        },
        "features": {
            "empty": (b"", "decode"),
            "version 3": (patched(good_features, 0, b"\x03"), "version"),
            "version 1 with the number 2": (patched(good_features, 0, b"\x02"), "decode"),
            "header cut": (good_features[:27], "decode"),
            "one value short": (good_features[:-1], "decode"),
            "one byte more": (good_features + b"\0", "decode"),
            "encoding 2": (patched(good_features, 1, b"\x02"), "decode"),
            "no features": (patched(good_features[:28], 2, b"\0\0"), "decode"),
            "frame_id 2**53": (patched(good_features, 4, struct.pack("<Q", 2**53)), "decode"),
            "scale 0": (patched(good_features, 20, struct.pack("<f", 0)), "decode"),
            "scale not a number": (patched(good_features, 20, struct.pack("<f", float("nan"))), "decode"),
            "scale 8192": (patched(good_features, 20, struct.pack("<f", 8192)), "decode"),
            "reserved byte set": (patched(good_features, 27, b"\x01"), "decode"),
            "float32 with a scale": (patched(good_floats, 20, struct.pack("<f", 1)), "decode"),
            "float32 infinity": (patched(good_floats, 28, struct.pack("<f", float("inf"))), "decode"),
            "float32 2**21": (patched(good_floats, 28, struct.pack("<f", 2.0**21)), "decode"),
        },
        "channel_features": {
            "header cut": (good_codes[:19], "decode"),
            "no codes": (good_codes[:20], "decode"),
            "one byte short": (good_codes[:-1], "decode"),
            "one byte more": (good_codes + b"\0", "decode"),
            "encoding 0": (patched(good_codes, 1, b"\x00"), "decode"),
            "encoding 1": (patched(good_codes, 1, b"\x01"), "decode"),
            "encoding 4": (patched(good_codes, 1, b"\x04"), "decode"),
            "encoding 64 + 3": (patched(good_codes, 1, b"\x43"), "decode"),
            "width 0": (patched(good_codes, 2, b"\0\0"), "decode"),
            "frame_id 2**53": (patched(good_codes, 4, struct.pack("<Q", 2**53)), "decode"),
            "something in the half byte after the last channel": (patched(good_codes, 21, b"\x13"), "decode"),
            "not deflated, but said to be": (patched(good_codes, 1, b"\x83"), "decode"),
            "deflated, but not said to be": (patched(deflated, 1, b"\x03"), "decode"),
            "deflated, cut": (deflated[:-1], "decode"),
            "deflated, followed by more": (deflated + b"\0", "decode"),
            "deflated to one byte more": (patched(deflated, 2, struct.pack("<H", 62)), "decode"),
            "deflated to one byte less": (patched(deflated, 2, struct.pack("<H", 66)), "decode"),
            "deflated, 4000 zeros for 64 codes": (deflated[:20] + zeros, "decode"),
        },
        "predictions": {
            "empty": (b"", "decode"),
            "version 2": (b'{"v":2,"answer":"cat"}', "version"),
            "version missing": (json.dumps({**prediction("abandoned", [], [0]), "v": None}).encode(), "version"),
            "unknown key": (json.dumps({**prediction("abandoned", [], [0]), "mood": 1}).encode(), "decode"),
            "complete without a class": (json.dumps(prediction("complete", [0], [])).encode(), "decode"),
        },
        "status": {
            "empty": (b"", "decode"),
            "version 2": (b'{"v":2,"state":"online","session":1}', "version"),
            "state unknown": (b'{"v":1,"state":"asleep","session":1}', "decode"),
            "session as text": (b'{"v":1,"state":"online","session":"1"}', "decode"),
            "session 2**53": (b'{"v":1,"state":"online","session":9007199254740992}', "decode"),
            "not UTF-8": (b'{"v":1,"state":"online","session":1,"x":"\xff"}', "decode"),
        },
        "heads": {"empty": (b"", "decode"), "not a zip": (b"\x93NUMPY", "decode")},
        "updates": {  # as chunks
            "empty": (b"", "decode"),
            "version 2": (patched(good_chunk, 0, b"\x02"), "version"),
            "no content": (good_chunk[:8], "decode"),
            "cut": (good_chunk[:-1], "decode"),
            "reserved byte set": (patched(good_chunk, 3, b"\x01"), "decode"),
            "another crc32": (patched(good_chunk, 4, b"\0"), "decode"),
            "one byte more than a chunk": (encode_chunk(bytes(32769)), "decode"),
        },
    }


def vector(kind: str, name: str, message: Vector) -> Vector:
    entry = {"name": name, "message": message, "bytes_hex": ENCODERS[kind](message).hex()}
    if kind == "heads":
        features = {int(student): np.array(f, np.float32) for student, f in message["features"].items()}
        logits, temperature = head_of(message).merge(features)
        entry["logits"] = logits.tolist()
        entry["probabilities"] = [round(p, 6) for p in probabilities(logits, temperature).tolist()]
    return entry


def topics() -> Vector:
    site = SiteTopics("home")
    return {
        "text": TEXTS["topics"],
        "site": "home",
        "topics": {
            "frame": site.frame("cam-1"),
            "feature": site.feature("cam-1", DEPLOYMENT, 2, "pi-3"),
            "prediction": site.prediction("cam-1"),
            "node state": site.node("pi-3", "state"),
            "node info": site.node("pi-3", "info"),
            "node telemetry": site.node("pi-3", "telemetry"),
            "coordinator state": site.coordinator("main", "state"),
            "coordinator info": site.coordinator("main", "info"),
        },
        "deployment_ids": {text: deployment_id(text.encode()) for text in ("", "{}", '{"schema":1}\n')},
    }


def quantization() -> Vector:
    features = [0.0, 0.24, 0.25, 0.26, 0.75, 1.25, 63.5, 64.0, 1000.0, -1.0]
    entries = []
    for scale, zero_point in ((0.5, -128), (0.5, 0), (0.25, 127)):
        values = quantize(np.array(features, np.float32), scale, zero_point)
        back = dequantize(values, scale, zero_point).tolist()
        entries.append(
            {"scale": scale, "zero_point": zero_point, "features": features, "values": values.tolist(), "back": back}
        )
    return {"text": TEXTS["quantization"], "vectors": entries}


def contents() -> dict[str, bytes]:
    """Every golden file by name, as the present code would write it."""
    files: dict[str, Vector] = {"topics": topics(), "quantization": quantization()}
    bad = refused()
    for kind, named in messages().items():
        files[kind] = {
            "text": TEXTS[kind],
            "vectors": [vector(kind, name, message) for name, message in named.items()],
            "refused": [{"name": n, "bytes_hex": b.hex(), "error": e} for n, (b, e) in bad[kind].items()],
        }
    return {f"{name}.json": (json.dumps(f, indent=1, ensure_ascii=False) + "\n").encode() for name, f in files.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="overwrite frozen files: a change of the protocol")
    force = parser.parse_args().force
    frozen = [n for n, c in contents().items() if (FOLDER / n).exists() and (FOLDER / n).read_bytes() != c]
    if frozen and not force:
        print(f"error: {', '.join(frozen)} would change; expected --force and a new version byte", file=sys.stderr)
        return 1
    for name, content in contents().items():
        (FOLDER / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
