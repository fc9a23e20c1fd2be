"""The strongest edges of the teacher's filter graph, as a file of a deployment: for people to look at. Pure.

UTF-8 JSON, `{"v": 1, "edges": [[filter, filter, weight], ...]}`: weights 0..1 relative to the strongest.
docs/protocol.md, section 9a.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

from edge_agent.protocol.errors import ManifestError

VERSION = 1
MAX_EDGES = 2048  # a picture with more is a grey blot
MAX_BYTES = 64 * MAX_EDGES
Edge = tuple[int, int, float]


def encode_edges(edges: Iterable[Edge]) -> bytes:
    """The file.

    >>> encode_edges([(0, 3, 1.0), (1, 2, 0.25)])
    b'{"v":1,"edges":[[0,3,1.0],[1,2,0.25]]}'
    """
    rows = [[first, second, round(weight, 3)] for first, second, weight in edges]
    return json.dumps({"v": VERSION, "edges": rows}, separators=(",", ":")).encode()


def parse_edges(content: bytes, filters: int) -> tuple[Edge, ...]:
    """Read the file; ManifestError unless every edge joins two of `filters` filters."""
    if len(content) > MAX_BYTES:
        raise ManifestError(f"graph: {len(content)} bytes, expected at most {MAX_BYTES}")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # a thousand open brackets
        raise ManifestError("graph: not JSON") from None
    if not isinstance(found, dict) or found.get("v") != VERSION or not isinstance(found.get("edges"), list):
        raise ManifestError(f"graph: expected version {VERSION} with a list of edges")
    return tuple(_edge(row, filters) for row in found["edges"])


def _edge(row: Any, filters: int) -> Edge:
    if not isinstance(row, list) or len(row) != 3:
        raise ManifestError("graph: an edge is [filter, filter, weight]")
    first, second, weight = row
    known = all(type(end) is int and 0 <= end < filters for end in (first, second))
    if not known or first == second:
        raise ManifestError(f"graph: {row[:2]} does not join two of {filters} filters")
    if type(weight) not in (int, float) or not math.isfinite(weight) or not 0 <= weight <= 1:
        raise ManifestError(f"graph: weight {weight!r}, expected 0 to 1")
    return first, second, float(weight)
