"""Takes a deployment that somebody copied onto the card's FAT partition: whole and checked, or not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_agent.console.atomic_file import sync_folder

CARD_FOLDER = "deployment"
INSTALLED = "var/lib/nonn-edge/deployment"
MANIFEST = "manifest.json"


class DeploymentProblemError(ValueError):
    """The card's deployment is damaged or incomplete."""


def install_card_deployment(card: Path, root: Path) -> str:
    """Copy the card's deployment if it is another one than the installed; return its id, or nothing."""
    return install_deployment(card / CARD_FOLDER, root)


def install_deployment(source: Path, root: Path) -> str:
    """Copy a deployment directory if it is another one than the installed; return its id, or nothing."""
    target = root / INSTALLED
    manifest = source / MANIFEST
    if not manifest.is_file():
        return ""
    content = manifest.read_bytes()
    if (target / MANIFEST).is_file() and (target / MANIFEST).read_bytes() == content:
        return ""
    files = list(listed_files(content))
    fresh = target.with_name("deployment.new")
    old = target.with_name("deployment.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, size_bytes, digest in files:
        _copy(source / name, fresh / name, size_bytes, digest)
    _write(fresh / MANIFEST, content)
    for folder in (fresh, target.parent):
        sync_folder(folder)
    if target.exists():
        target.rename(old)
    # A power cut here leaves no deployment, and the next start copies it again.
    fresh.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
    return hashlib.sha256(content).hexdigest()[:16]


def listed_files(manifest: bytes) -> Iterator[tuple[str, int, str]]:
    """Return (name, size, sha256) of every file that a manifest lists, wherever in it."""
    try:
        document = json.loads(manifest)
    except (ValueError, RecursionError) as error:
        raise DeploymentProblemError(f"{CARD_FOLDER}/{MANIFEST}: not valid JSON: {error}") from error
    for entry in _entries(document):
        name = entry["file"]
        if Path(name).name != name or name.startswith("."):
            raise DeploymentProblemError(f"{CARD_FOLDER}/{MANIFEST}: {name!r} is no plain file name")
        yield name, entry["size_bytes"], entry["sha256"]


def _entries(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("file"), str) and "sha256" in value and "size_bytes" in value:
            yield value
        for part in value.values():
            yield from _entries(part)
    elif isinstance(value, list):
        for part in value:
            yield from _entries(part)


def _copy(source: Path, target: Path, size_bytes: int, digest: str) -> None:
    where = f"{CARD_FOLDER}/{source.name}"
    if not source.is_file():
        raise DeploymentProblemError(f"{where} is missing; copy the whole deployment folder")
    content = source.read_bytes()
    if len(content) != size_bytes or hashlib.sha256(content).hexdigest() != digest:
        raise DeploymentProblemError(f"{where} is damaged ({len(content)} bytes, expected {size_bytes}); copy it again")
    _write(target, content)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)
