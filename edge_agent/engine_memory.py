"""The engine choice, made once and kept beside the student until something that decides it changes."""

import contextlib
import hashlib
import json
import logging
from importlib import metadata
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.cpu_targets import this_cpu
from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.console.exit_codes import UserError
from edge_agent.engine_choice import EngineChoice, allowed, choose_engine
from edge_agent.protocol.manifest import Artifact, Student
from edge_agent.runtimes.student_runtime import EngineError
from edge_agent.runtimes.tvm_library import find_library

# Whatever computes: a new version of one of these may turn the order round.
ENGINE_PACKAGES = ("ai-edge-litert", "tflite-runtime", "apache-tvm-ffi", "numpy")
_log = logging.getLogger("agent")


class RememberedChoice(BaseModel):
    """`.engine-choice-<student>.json`: which artifact runs here, and how all of them did."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str  # of what the choice depends on; another key, another choice
    artifact: str = ""  # file name
    times_ms: dict[str, float] = {}  # median by file
    refused: dict[str, str] = {}  # files that this CPU could run but that failed, and why

    @classmethod
    def of(cls, key: str, choice: EngineChoice) -> Self:
        """What is worth keeping of a choice; files for other CPUs are not."""
        cpu = this_cpu()
        tried = {c.artifact.file for c in allowed([c.artifact for c in choice.candidates], cpu) if not c.refused}
        refused = {c.artifact.file: c.refused for c in choice.candidates if c.refused and c.artifact.file in tried}
        return cls(key=key, artifact=choice.chosen.artifact.file, times_ms=choice.times_ms, refused=refused)


def chosen_artifact(
    deployment: DeploymentDirectory, student: Student, engine: str, precision: str, num_threads: int
) -> tuple[Artifact, RememberedChoice | None]:
    """The artifact to run, from memory or timed now; no choice is needed, and None returned, where only one fits.

    Only files that are here count: a device may have fetched some of a deployment's. UserError if none works.
    """
    candidates = [
        c.artifact
        for c in allowed(student.artifacts, this_cpu(), engine, precision)
        if not c.refused and (deployment.path / c.artifact.file).is_file()
    ]
    if not candidates:
        raise UserError(f"student {student.index}: {_what_there_is(deployment, student, engine, precision)}")
    if len(candidates) == 1:
        return candidates[0], None
    path = deployment.path / f".engine-choice-{student.index}.json"
    key = choice_key(candidates, engine, precision, num_threads)
    known = _read(path)
    if known is None or known.key != key:
        known = _choose(deployment, student, candidates, num_threads, key)
        _remember(path, known)
    return next(a for a in candidates if a.file == known.artifact), known


def choice_key(artifacts: list[Artifact], engine: str, precision: str, num_threads: int) -> str:
    """Name what a choice depends on: files, CPU, engines, settings."""
    cpu = this_cpu()
    parts = {
        "artifacts": sorted(a.sha256 for a in artifacts),
        "cpu": [cpu.machine, *sorted(cpu.features)],
        "engines": engine_versions(),
        "settings": [engine, precision, num_threads],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def engine_versions() -> dict[str, str]:
    """Installed packages that run students, by name."""
    versions = {}
    for package in ENGINE_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    with contextlib.suppress(EngineError):
        versions["libtvm_runtime"] = find_library().version
    return versions


def _choose(
    deployment: DeploymentDirectory, student: Student, candidates: list[Artifact], num_threads: int, key: str
) -> RememberedChoice:
    manifest = deployment.manifest
    for artifact in candidates:
        deployment.check(artifact)  # before the bytes reach an engine
    shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
    image = np.frombuffer(deployment.read(manifest.golden_input), np.uint8).reshape(shape)
    _log.info("student %d: timing %d artifacts, once", student.index, len(candidates))
    these = student.model_copy(update={"artifacts": tuple(candidates)})
    choice = RememberedChoice.of(key, choose_engine(deployment.path, these, image, num_threads=num_threads))
    for file, reason in choice.refused.items():
        _log.warning("student %d: %s is not used: %s", student.index, file, reason)
    times = ", ".join(f"{file} {ms:g} ms" for file, ms in sorted(choice.times_ms.items(), key=lambda item: item[1]))
    _log.info("student %d: chose %s of %s", student.index, choice.artifact, times)
    return choice


def _read(path: Path) -> RememberedChoice | None:
    try:
        return RememberedChoice.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None  # absent or damaged: the price is one more timing


def _remember(path: Path, choice: RememberedChoice) -> None:
    try:
        write_atomically(path, choice.model_dump_json(indent=1).encode())
    except OSError as error:
        _log.warning("%s: %s; the engines are timed again at the next start", path, error.strerror)


def _what_there_is(deployment: DeploymentDirectory, student: Student, engine: str, precision: str) -> str:
    asked = allowed(student.artifacts, this_cpu(), engine, precision)
    if not asked:
        there = ", ".join(f"{a.engine}/{a.precision}" for a in student.artifacts)
        return f"no artifact for {engine}/{precision}; the manifest has {there}"
    fitting = [c.artifact.file for c in asked if not c.refused]
    if fitting:
        return f"{deployment.path / fitting[0]}: No such file or directory; the manifest lists it"
    reasons = "; ".join(f"{c.artifact.file}: {c.refused}" for c in asked)
    return f"no artifact for this device: {reasons}"
