"""The graph file of a deployment: what the trainer writes, the dashboard reads."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.filter_edges import MAX_BYTES, MAX_EDGES, encode_edges, parse_edges
from edge_agent.protocol.manifest import parse_manifest
from trainer.filter_graph import strongest_edges


@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_every_filter_keeps_its_strongest_edge_and_the_file_reads_back(filters, per_filter, seed):
    weights = np.random.default_rng(seed).random((filters, filters))
    matrix = weights + weights.T
    edges = strongest_edges(matrix, per_filter)
    assert edges[0][2] == 1.0
    assert [edge[2] for edge in edges] == sorted((edge[2] for edge in edges), reverse=True)
    np.fill_diagonal(matrix, 0)
    kept = {edge[:2] for edge in edges}
    for filter_, row in enumerate(matrix):
        other = int(row.argmax())
        assert (min(filter_, other), max(filter_, other)) in kept
    read = parse_edges(encode_edges(edges), filters)
    assert [edge[:2] for edge in read] == [edge[:2] for edge in edges]
    assert [edge[2] for edge in read] == pytest.approx([edge[2] for edge in edges], abs=0.0005)


def test_a_teacher_of_thousands_of_filters_makes_no_file_that_is_refused():
    matrix = np.random.default_rng(0).random((1500, 1500))
    edges = strongest_edges(matrix + matrix.T)
    assert len(edges) == MAX_EDGES
    content = encode_edges(edges)
    assert len(content) <= MAX_BYTES
    assert len(parse_edges(content, 1500)) == MAX_EDGES


def test_filters_that_never_fire_together_have_no_edges():
    assert strongest_edges(np.zeros((3, 3))) == []


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b"\xff", b'{"v":2,"edges":[]}', b'{"v":1,"edges":{}}', b'{"v":1,"edges":[[0,1]]}',
        b'{"v":1,"edges":[[0,4,0.5]]}', b'{"v":1,"edges":[[-1,1,0.5]]}', b'{"v":1,"edges":[[1,1,0.5]]}',
        b'{"v":1,"edges":[[0,1,1.5]]}', b'{"v":1,"edges":[[0,1,NaN]]}', b'{"v":1,"edges":[[0,1,"x"]]}',
        b'{"v":1,"edges":[[true,0,1]]}', b" " * (MAX_BYTES + 1),
    ],
)  # fmt: skip
def test_anything_else_is_refused(content):
    with pytest.raises(ManifestError, match="graph"):
        parse_edges(content, 4)


def test_a_manifest_without_graph_keeps_its_bytes_and_one_with_it_lists_the_file(tiny):
    content = (tiny / "manifest.json").read_bytes()
    manifest = parse_manifest(content)
    assert manifest.graph is None
    assert manifest.to_bytes() == content
    raw = json.loads(content)
    raw["graph"] = {"file": "graph.json", "size_bytes": 9, "sha256": "0" * 64}
    manifest = parse_manifest(json.dumps(raw).encode())
    assert "graph.json" in [entry.file for entry in manifest.files()]
    assert parse_manifest(manifest.to_bytes()) == manifest
