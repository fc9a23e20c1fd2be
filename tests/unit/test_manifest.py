"""The manifest: round trip, canonical bytes, and every contradiction named."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.manifest import (
    MAX_MANIFEST_BYTES,
    Artifact,
    Codec,
    CodecRanges,
    FileEntry,
    Golden,
    InputShape,
    Manifest,
    Student,
    deployment_id,
    parse_manifest,
)

HASH = "0123456789abcdef" * 4
finite = st.floats(-1e6, 1e6)
texts = st.text(max_size=10)
scalar_codecs = st.builds(Codec, scale=st.floats(1e-6, 1), zero_point=st.integers(-128, 127))


@st.composite
def channel_codecs(draw: st.DrawFn, width: int) -> Codec:
    low = tuple(draw(st.floats(-100, 0, width=32)) for _ in range(width))
    step = tuple(draw(st.floats(2.0**-20, 10, width=32)) for _ in range(width))
    encoding, curve = draw(st.sampled_from([("int4", "linear"), ("int8", "linear"), ("int4", "square")]))
    return Codec(encoding=encoding, ranges=CodecRanges(low=low, step=step, curve=curve), deflate=draw(st.booleans()))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    filters = draw(st.integers(1, 12))
    count = draw(st.integers(1, min(4, filters)))
    owners = list(range(count)) + draw(st.lists(st.integers(0, count - 1), min_size=filters, max_size=filters))
    students = []
    in_channels = draw(st.booleans())
    for index in range(count):
        part = tuple(f for f in range(filters) if owners[f] == index)
        artifacts = tuple(
            Artifact(file=f"s{index}.{precision}", size_bytes=9, sha256=HASH, engine="tflite", precision=precision)
            for precision in ("int8", "float32")[: draw(st.integers(1, 2))]
        )
        students.append(
            Student(
                index=index, network=draw(texts), filters=part, width=len(part), parameters=1, macs=1,
                artifacts=artifacts, codec=draw(channel_codecs(len(part)) if in_channels else scalar_codecs),
                golden=Golden(features=tuple(draw(finite) for _ in part), tolerance=0.1),
            )
        )  # fmt: skip
    size = draw(st.tuples(st.integers(1, 1024), st.integers(1, 1024), st.sampled_from([1, 3])))
    return Manifest(
        schema=Manifest.schema_for(students),
        name=draw(st.text(min_size=1, max_size=10)), version=draw(st.integers(1, 2**40)),
        created=draw(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))),  # noqa: DTZ001
        teacher=draw(texts), classes=tuple(draw(st.lists(texts, min_size=2, max_size=5))),
        input=InputShape(height=size[0], width=size[1], channels=size[2]), filters=filters, students=tuple(students),
        head=FileEntry(file="head.npz", size_bytes=1, sha256=HASH),
        golden_input=FileEntry(file="golden.bin", size_bytes=size[0] * size[1] * size[2], sha256=HASH),
        metrics=draw(st.dictionaries(texts, finite, max_size=3)),
    )  # fmt: skip


@given(manifests())
@settings(max_examples=60)
def test_round_trip_and_canonical_bytes(manifest: Manifest) -> None:
    content = manifest.to_bytes()
    assert parse_manifest(content) == manifest
    assert parse_manifest(content).to_bytes() == content
    assert content.endswith(b"}\n")
    assert list(json.loads(content)) == sorted(json.loads(content))


@given(manifests())
@settings(max_examples=30)
def test_every_truncation_is_refused(manifest: Manifest) -> None:
    content = manifest.to_bytes()
    for length in range(0, len(content) - 2, 11):
        with pytest.raises(ManifestError):
            parse_manifest(content[:length])


@given(manifests(), st.data())
@settings(max_examples=60)
def test_flipped_bits_raise_only_manifest_errors(manifest: Manifest, data: st.DataObject) -> None:
    content = bytearray(manifest.to_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    with suppress(ManifestError):
        parse_manifest(bytes(content))


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] * bool(path) + [leaf for key, value in children for leaf in leaves(value, (*path, key))]


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> bytes:
    changed = json.loads(json.dumps(tree))
    node = changed
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return json.dumps(changed).encode()


@pytest.fixture(scope="session")
def tree(tiny: Path) -> Any:
    return json.loads((tiny / "manifest.json").read_bytes())


@given(st.data(), st.sampled_from([None, True, -1, 0, 10**18, 10**40, 1.5, float("nan"), "", "../x", "x", [], {}, [0]]))
@settings(max_examples=300)
def test_any_value_anywhere_raises_only_manifest_errors(tree: Any, data: st.DataObject, value: Any) -> None:
    content = replaced(tree, data.draw(st.sampled_from(leaves(tree))), value)
    with suppress(ManifestError):
        parse_manifest(content)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("schema",), 2, "schema"),
        (("filters",), 13, "cover the 13 filters"),
        (("filters",), 10**12, "filters"),
        (("students", 0, "filters", 0), 1, "cover"),
        (("students", 0, "filters", 0), -1, "cover"),
        (("students", 0, "filters"), [0, 1], "expected width 5"),
        (("students", 0, "golden", "features"), [0.0], "1 golden features"),
        (("students", 0, "index"), 1, "indices"),
        (("students", 0, "codec", "scale"), 0, "scale"),
        (("students", 0, "artifacts", 0, "file"), "../../etc/passwd", "file"),
        (("students", 0, "artifacts", 0, "file"), "/etc/passwd", "file"),
        (("students", 0, "artifacts", 0, "file"), "manifest.json", "same file"),
        (("students", 0, "artifacts", 0, "file"), "head.npz", "same file"),
        (("students", 0, "artifacts", 0, "file"), "a\n", "file"),
        (("students", 0, "artifacts", 0, "sha256"), "0" * 63, "sha256"),
        (("students", 0, "artifacts", 0, "size_bytes"), 0, "size_bytes"),
        (("students", 0, "artifacts", 0, "engine"), "onnx", "engine"),
        (("students", 0, "artifacts"), [], "artifacts"),
        (("students",), [], "students"),
        (("classes",), ["one"], "classes"),
        (("input", "channels"), 2, "channels"),
        (("input", "height"), 9, "golden input"),
        (("version",), "1", "version"),
        (("created",), "yesterday", "created"),
        (("expires",), "never", "expires"),
        (("metrics", "accuracy"), float("nan"), "accuracy"),
        (("surprise",), 1, "surprise"),
    ],
)
def test_contradictions_are_named(tree: Any, path: tuple[Any, ...], value: Any, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        parse_manifest(replaced(tree, path, value))


def test_a_manifest_without_end_is_not_read() -> None:
    with pytest.raises(ManifestError, match="at most"):
        parse_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


def test_the_deployment_id_is_the_hash_of_the_file(tiny: Path) -> None:
    content = (tiny / "manifest.json").read_bytes()
    assert len(deployment_id(content)) == 16
    assert deployment_id(content + b" ") != deployment_id(content)
    assert parse_manifest(content).to_bytes() == content


def test_files_are_checked_by_length_and_hash(tiny: Path) -> None:
    manifest = parse_manifest((tiny / "manifest.json").read_bytes())
    assert {entry.file for entry in manifest.files()} == {p.name for p in tiny.glob("[!.]*")} - {"manifest.json"}
    for entry in manifest.files():
        content = (tiny / entry.file).read_bytes()
        assert entry.check(content) == content
        with pytest.raises(ManifestError, match="bytes, the manifest says"):
            entry.check(content[:-1])
        with pytest.raises(ManifestError, match="sha256"):
            entry.check(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("folder", ["tests/fixtures/tiny", "docs/examples/cifar10-2x-wrn-16-1"])
def test_deployments_of_before_ranges_load_and_keep_their_bytes(repository: Path, folder: str) -> None:
    content = (repository / folder / "manifest.json").read_bytes()
    manifest = parse_manifest(content)
    if manifest.schema_ == 1:
        assert manifest.to_bytes() == content
        assert all(codec.channel_ranges is None for codec in manifest.codecs)


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        ({"encoding": "int4"}, "int4 needs ranges"),
        ({"encoding": "int8", "deflate": True}, "deflate needs ranges"),
        ({"encoding": "float32", "ranges": ([0.0] * 5, [1.0] * 5)}, "float32 has no ranges"),
        ({"encoding": "int4", "ranges": ([0.0] * 4, [1.0] * 4)}, "4 ranges, expected 5"),
        ({"encoding": "int4", "ranges": ([0.0] * 5, [1.0] * 4)}, "expected twice"),
        ({"encoding": "int4", "ranges": ([0.0] * 5, [0.0] * 5)}, "positive steps"),
        ({"encoding": "int4", "ranges": ([0.0] * 5, [-1.0] * 5)}, "positive steps"),
        ({"encoding": "int8", "ranges": ([0.0] * 5, [1e300] * 5)}, "finite numbers"),
        ({"encoding": "int8", "ranges": ([0.0] * 5, [5000.0] * 5)}, "reach beyond 1048576"),
        ({"encoding": "int4", "ranges": ([], [])}, "at least 1 item"),
        ({"encoding": "int8", "ranges": ([0.0] * 5, [20.0] * 5), "curve": "square"}, "reach beyond 1048576"),
        ({"encoding": "int4", "ranges": ([0.0] * 5, [1.0] * 5), "curve": "cubic"}, "curve"),
        ({"encoding": "int2", "ranges": ([0.0] * 5, [1.0] * 5)}, "encoding"),
        ({"encoding": "int4", "ranges": ([0.0] * 5, [1.0] * 5), "bits": 4}, "bits"),
    ],
)
def test_codecs_that_make_no_sense_are_refused(tree: Any, codec: dict[str, Any], words: str) -> None:
    content = {**codec}
    if "ranges" in codec:
        content["ranges"] = dict(zip(("low", "step"), codec["ranges"], strict=True))
        content["ranges"]["curve"] = content.pop("curve", "linear")
    changed = replaced({**tree, "schema": 2}, ("students", 0, "codec"), content)
    with pytest.raises(ManifestError, match=words):
        parse_manifest(changed)


def test_ranges_need_schema_2_and_nothing_else_does(tree: Any) -> None:
    codec = {"encoding": "int4", "ranges": {"low": [0.0] * 5, "step": [1.0] * 5}}
    with pytest.raises(ManifestError, match="schema 1, expected 2"):
        parse_manifest(replaced(tree, ("students", 0, "codec"), codec))
    with pytest.raises(ManifestError, match="schema 2, expected 1"):
        parse_manifest(replaced(tree, ("schema",), 2))
    manifest = parse_manifest(replaced({**tree, "schema": 2}, ("students", 0, "codec"), codec))
    assert manifest.codecs[0].channel_ranges is not None
    assert b"zero_point" not in manifest.to_bytes().split(b'"golden"')[0]
