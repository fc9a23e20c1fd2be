"""docs/protocol.md, the golden vectors and the code say the same."""

import json
import re
import struct
from pathlib import Path
from typing import Any, get_args

import pytest

from edge_agent.protocol import chunks, feature_message, frame_message, head, json_message, manifest, pack, signature
from edge_agent.protocol import update_messages as updates
from edge_agent.protocol.healing_link import LOGIN_TIMEOUT_S
from edge_agent.protocol.prediction_message import LatencySplit, PredictionMessage
from edge_agent.protocol.status import CoordinatorInfo, NodeInfo, NodeState, NodeTelemetry, StudentInfo

CODES = {"uint8": "B", "int8": "b", "uint16": "H", "uint32": "I", "uint64": "Q", "float32": "f"}


@pytest.fixture(scope="module")
def document(repository: Path) -> str:
    return (repository / "docs/protocol.md").read_text(encoding="utf-8")


def section(document: str, number: int | str) -> str:
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", document, re.MULTILINE | re.DOTALL)
    assert found, f"section {number}"
    return found[0]


def layout(text: str) -> list[tuple[int, str, str, str]]:
    """Rows of a byte table: offset, bytes, type, field."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    return [(int(offset), size.strip(), kind.strip(), name.strip()) for offset, size, kind, name in rows]


def words_of(text: str) -> set[str]:
    """Everything in backquotes that may be a key or a value."""
    return set(re.findall(r"`([a-z_0-9]+)`", text))


def byte_table(document: str, kind: str) -> list[tuple[int, str, str, str]]:
    """Rows of the layout that a golden file is written in."""
    if kind == "frames":
        return layout(section(document, 3))
    if kind == "packs":
        return layout(section(document, "5a"))
    if kind == "chunks":
        return layout(section(document, 13))
    scalar, channels = section(document, 4).split("### Version 2")
    return layout(scalar if kind == "features" else channels)


@pytest.mark.parametrize(
    ("kind", "packed", "header_bytes"),
    [
        ("frames", frame_message._HEADER, frame_message.HEADER_BYTES),
        ("features", feature_message._HEADER, feature_message.HEADER_BYTES),
        ("channel_features", feature_message._CHANNELS_HEADER, feature_message.CHANNELS_HEADER_BYTES),
        ("packs", pack._HEADER, pack.HEADER_BYTES),
        ("chunks", chunks._HEADER, chunks.HEADER_BYTES),
    ],
)
def test_byte_tables_agree_with_the_code(document: str, kind: str, packed: struct.Struct, header_bytes: int) -> None:
    rows = byte_table(document, kind)
    *header, body = rows
    expected = 0
    codes = "<"
    for offset, size, kind, name in header:
        assert offset == expected, name
        count = int(size) // struct.calcsize(CODES[kind])
        codes += CODES[kind] if count == 1 else f"{count}s"
        expected += int(size)
    assert body[0] == expected == header_bytes
    assert codes == packed.format


def test_golden_bytes_stand_at_the_offsets_of_the_tables(document: str, repository: Path) -> None:
    for kind in ("frames", "features", "channel_features"):
        rows = byte_table(document, kind)[:-1]
        for entry in json.loads((repository / f"tests/golden/{kind}.json").read_bytes())["vectors"]:
            content = bytes.fromhex(entry["bytes_hex"])
            for offset, size, kind_name, name in rows:
                if name in entry["message"] and name != "encoding":
                    (found,) = struct.unpack_from("<" + CODES[kind_name], content, offset)
                    assert found == entry["message"][name], (entry["name"], name)
                assert int(size) > 0


def test_limits_of_the_document_are_those_of_the_code(document: str) -> None:
    frames, features, status, deployments, files = (section(document, n) for n in (3, 4, 6, 7, 9))
    assert f"1 to {frame_message.MAX_SIDE}" in frames
    assert frame_message.MAX_FRAME_ID == json_message.MAX_INTEGER == 2**53 - 1
    assert feature_message.MIN_SCALE == 2.0**-126
    assert f"2^-126 to {feature_message.MAX_SCALE:.0f}" in features
    assert feature_message.MAX_FEATURE == 2.0**20
    assert str(json_message.MAX_JSON_BYTES) in status
    assert str(manifest.MAX_MANIFEST_BYTES) in deployments
    assert str(manifest.MAX_FILTERS) in deployments
    assert head.MAX_WEIGHT == 2.0**40
    assert f"{head.MIN_TEMPERATURE:g} to {head.MAX_TEMPERATURE:g}" in files
    rollouts = section(document, 13)
    assert f"at most {json_message.MAX_JSON_BYTES} bytes, those with a manifest {updates.MAX_DESIRED_BYTES}" in rollouts
    assert f"1 to {chunks.MAX_WINDOW} numbers" in rollouts
    assert f"at most {signature.MAX_SIGNATURES} objects" in rollouts
    assert f"`{chunks.CHUNK_BYTES} x number`" in rollouts
    assert set(get_args(updates.RolloutPhase)) | set(get_args(updates.UpdateStateName)) <= words_of(rollouts)
    assert f"within {LOGIN_TIMEOUT_S:.0f} seconds" in section(document, 2)


@pytest.mark.parametrize(
    ("number", "kinds"),
    [
        (5, [PredictionMessage, LatencySplit]),
        (6, [NodeState, NodeInfo, StudentInfo, NodeTelemetry, CoordinatorInfo]),
        (7, [manifest.Manifest, manifest.Student, manifest.Artifact, manifest.Golden]),
        (7, [manifest.Codec, manifest.CodecRanges]),
        (13, [updates.DesiredMessage, updates.SwitchMessage, updates.NodeUpdate, updates.ChunkRequest]),
        (13, [updates.DeployRequest, updates.DeployReply, updates.RolloutStatus, updates.CanaryReport]),
        (13, [updates.SignedContent, updates.RollbackOrder, signature.Signature]),
    ],
)
def test_every_key_is_documented(document: str, number: int, kinds: list[Any]) -> None:
    words = words_of(section(document, number))
    for kind in kinds:
        keys = {field.alias or name for name, field in kind.model_fields.items()}
        assert keys - words - {"v"} == set(), kind.__name__


def test_golden_topics_are_documented(document: str, repository: Path) -> None:
    table = re.findall(r"^\| `([^`]+)` \|", section(document, 2), re.MULTILINE)
    patterns = [re.compile(re.sub(r"<\w+>", "[a-z0-9-]+", topic)) for topic in table]
    golden = json.loads((repository / "tests/golden/topics.json").read_bytes())
    for topic in golden["topics"].values():
        relative = topic.removeprefix("nonn/1/home/")
        assert any(pattern.fullmatch(relative) for pattern in patterns), topic


def test_sections_that_the_code_names_exist(document: str, repository: Path) -> None:
    for path in [*(repository / "edge_agent/protocol").glob("*.py"), *(repository / "coordinator").glob("*.py")]:
        for names in re.findall(r"docs/protocol\.md, sections? ([\d and]+)", path.read_text()):
            for number in re.findall(r"\d+", names):
                section(document, int(number))


def test_the_glossary_has_the_words_of_the_protocol(repository: Path) -> None:
    glossary = (repository / "docs/glossary.md").read_text(encoding="utf-8")
    words = {
        word.strip() for row in re.findall(r"^\| \*\*(.+?)\*\* \|", glossary, re.MULTILINE) for word in row.split(",")
    }
    assert len(words) > 30
    assert {"frame", "features", "student", "device", "session", "quorum", "deadline", "mask", "partition"} <= words
