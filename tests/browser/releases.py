"""Signed bundles of the test deployment, as an operator would make them."""

import json
from pathlib import Path

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.bundle import make_bundle
from edge_agent.protocol.filter_edges import encode_edges
from edge_agent.protocol.manifest import file_entry
from edge_agent.protocol.signature import SigningKey

EDGES = [(0, 1, 1.0), (2, 5, 0.6), (7, 11, 0.3), (3, 4, 0.1)]


def with_graph(source: Path, target: Path, **changes: object) -> Path:
    """A copy of a deployment that has a filter graph."""
    directory = open_deployment(source)
    target.mkdir()
    for entry in directory.manifest.files():
        (target / entry.file).write_bytes(directory.read(entry))
    content = encode_edges(EDGES)
    (target / "graph.json").write_bytes(content)
    manifest = directory.manifest.model_copy(update={"graph": file_entry(Path("graph.json"), content), **changes})
    (target / "manifest.json").write_bytes(manifest.to_bytes())
    return target


def bundle(folder: Path, key: SigningKey | None) -> bytes:
    """The .nonn file of a deployment directory."""
    directory = open_deployment(folder)
    content = (folder / "manifest.json").read_bytes()
    signatures = (key.sign("manifest", content),) if key is not None else ()
    return make_bundle(content, directory.read, signatures).to_bytes()


def version(folder: Path) -> int:
    """Of a deployment directory."""
    return int(json.loads((folder / "manifest.json").read_text())["version"])
