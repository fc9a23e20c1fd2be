"""Predictions and status messages: round trip, strict reading, unknown versions by name."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from edge_agent.protocol.errors import DecodeError, ProtocolError, UnsupportedVersionError
from edge_agent.protocol.frame_message import MAX_FRAME_ID
from edge_agent.protocol.json_message import MAX_JSON_BYTES
from edge_agent.protocol.prediction_message import LatencySplit, PredictionMessage, decode_prediction
from edge_agent.protocol.status import (
    CoordinatorInfo,
    NodeInfo,
    NodeState,
    NodeTelemetry,
    StudentInfo,
    decode_status,
)

texts = st.text(max_size=20)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
counts = st.integers(0, 2**53 - 1)
positive = st.floats(0, 1e6)
student_sets = st.lists(st.integers(0, 255), max_size=5, unique=True).map(tuple)
latencies = st.builds(
    LatencySplit, total=positive, student=positive, queue=positive, transport=positive, merge=positive
)
abandoned = st.builds(
    PredictionMessage,
    frame_id=st.integers(0, MAX_FRAME_ID),
    source=names,
    coordinator=names,
    deployment=names,
    result=st.just("abandoned"),
    present=student_sets,
    missing=student_sets,
    latency_ms=latencies,
)
answered = st.builds(
    PredictionMessage,
    frame_id=st.integers(0, MAX_FRAME_ID),
    source=names,
    coordinator=names,
    deployment=names,
    result=st.sampled_from(["complete", "degraded"]),
    class_index=st.integers(0, 1),
    class_name=texts,
    probabilities=st.lists(st.floats(0, 1), min_size=2, max_size=5).map(tuple),
    present=student_sets,
    missing=student_sets,
    latency_ms=latencies,
)
states = st.builds(NodeState, state=st.sampled_from(["online", "offline"]), session=counts)
student_infos = st.builds(
    StudentInfo, student=st.integers(0, 255), width=st.integers(1, 65535), selftest_error=positive
)
infos = st.builds(NodeInfo, session=counts, students=st.lists(student_infos, max_size=3).map(tuple))
telemetries = st.builds(
    NodeTelemetry,
    session=counts,
    uptime_s=positive,
    cpu_percent=positive,
    temperature_c=st.none() | positive,
    power_w=st.none() | positive,
    power_source=st.none() | st.sampled_from(["measured", "estimated"]),
    energy_j=st.none() | st.dictionaries(st.sampled_from(["measured", "estimated"]), positive, max_size=2),
    student_ms_p50=st.none() | positive,
    student_ms_p95=st.none() | positive,
)
coordinators = st.builds(
    CoordinatorInfo,
    session=counts,
    height=st.integers(1, 1024),
    width=st.integers(1, 1024),
    channels=st.sampled_from([1, 3]),
    students=st.integers(1, 256),
    deadline_ms=positive,
)
messages: st.SearchStrategy[Any] = st.one_of(abandoned, answered, states, infos, telemetries, coordinators)
KINDS: list[Any] = [PredictionMessage, NodeState, NodeInfo, NodeTelemetry, CoordinatorInfo]


def decode(kind: Any, payload: bytes) -> BaseModel:
    message: BaseModel = decode_prediction(payload) if kind is PredictionMessage else decode_status(kind, payload)
    return message


@given(messages)
def test_round_trip(message: Any) -> None:
    payload = message.encode()
    json.loads(payload.decode(), parse_constant=pytest.fail)  # NaN and Infinity are not JSON
    assert decode(type(message), payload) == message


@given(messages)
def test_every_truncation_is_refused(message: Any) -> None:
    payload = message.encode()
    for length in range(len(payload)):
        with pytest.raises(DecodeError):
            decode(type(message), payload[:length])


@given(messages, st.data())
def test_a_flipped_bit_raises_only_protocol_errors(message: Any, data: st.DataObject) -> None:
    payload = bytearray(message.encode())
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    payload[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(ProtocolError):
        decode(type(message), bytes(payload))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(KINDS), st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_garbage_raises_only_protocol_errors(kind: Any, payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(kind, payload)


@given(messages, st.data(), json_values)
def test_a_field_of_any_other_value_raises_only_protocol_errors(message: Any, data: st.DataObject, value: Any) -> None:
    content = json.loads(message.encode())
    content[data.draw(st.sampled_from(sorted(content)))] = value
    with contextlib.suppress(ProtocolError):
        decode(type(message), json.dumps(content).encode())


@pytest.mark.parametrize("version", [0, 2, "1", 1.5, True, None, [1]])
@pytest.mark.parametrize("kind", KINDS)
def test_another_version_is_named_whatever_the_rest_looks_like(kind: Any, version: object) -> None:
    with pytest.raises(UnsupportedVersionError, match="version"):
        decode(kind, json.dumps({"frame_id": "new", "state": [], "v": version}).encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"v":1}' * 2,
        b'{"v":1,"state":"online","session":1e3}',
        b'{"v":1,"state":"online","session":"1"}',
        b'{"v":1,"state":"online","session":-1}',
        b'{"v":1,"state":"online","session":9007199254740992}',
        b'{"v":1,"state":"online","session":' + b"9" * 5000 + b"}",
        b'{"v":1,"state":"ONLINE","session":1}',
        b'{"state":"online","session":1}',
        b'{"v":1,"state":"online","session":1,"note":"' + b"x" * MAX_JSON_BYTES + b'"}',
        b'{"v":1,"state":"online","session":1,"note":"\xff"}',
    ],
    ids=lambda payload: payload[:40].decode("latin1"),
)
def test_states_that_are_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_status(NodeState, payload)
    assert len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)


def test_a_status_message_may_say_more_than_we_know() -> None:
    payload = b'{"v":1,"state":"online","session":5,"mood":"fine"}'
    assert decode_status(NodeState, payload) == NodeState(state="online", session=5)


def test_numbers_that_are_not_numbers_are_refused() -> None:
    message = coordinators.map(lambda info: json.loads(info.encode()))

    @given(message, st.sampled_from([float("nan"), float("inf"), -float("inf")]))
    def check(content: dict[str, Any], value: float) -> None:
        content["deadline_ms"] = value
        with pytest.raises(DecodeError, match="deadline_ms"):
            decode_status(CoordinatorInfo, json.dumps(content).encode())

    check()


def prediction(**changes: object) -> bytes:
    content = {
        "v": 1, "frame_id": 1, "source": "a", "coordinator": "main", "deployment": "0" * 16, "result": "complete",
        "class_index": 1, "class_name": "cat", "probabilities": [0.25, 0.75], "present": [0], "missing": [],
        "latency_ms": {"total": 1, "student": 0, "queue": 0, "transport": 1, "merge": 0},
    }  # fmt: skip
    return json.dumps({**content, **changes}).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"class_index": 2},
        {"class_index": None},
        {"class_name": None},
        {"probabilities": []},
        {"probabilities": [0.25, 1.5]},
        {"probabilities": [0.25, float("nan")]},
        {"result": "abandoned"},
        {"result": "early"},
        {"present": [-1]},
        {"present": [256]},
        {"present": [10**40]},
        {"frame_id": MAX_FRAME_ID + 1},
        {"frame_id": -1},
        {"latency_ms": {}},
        {"surprise": 1},
    ],
    ids=str,
)
def test_predictions_that_contradict_themselves_are_refused(change: dict[str, object]) -> None:
    decode_prediction(prediction())
    with pytest.raises(DecodeError):
        decode_prediction(prediction(**change))
