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
    device: str = ""  # of the part of it that no deployment changes: CPU, engines, settings
    artifact: str = ""  # file name
    times_ms: dict[str, float] = {}  # median by file
    refused: dict[str, str] = {}  # files that this CPU could run but that failed, and why

    @classmethod
    def of(cls, key: str, device: str, choice: EngineChoice) -> Self:
        """What is worth keeping of a choice; files for other CPUs are not."""
        cpu = this_cpu()
        tried = {c.artifact.file for c in allowed([c.artifact for c in choice.candidates], cpu) if not c.refused}
        refused = {c.artifact.file: c.refused for c in choice.candidates if c.refused and c.artifact.file in tried}
        file = choice.chosen.artifact.file
        return cls(key=key, device=device, artifact=file, times_ms=choice.times_ms, refused=refused)


def chosen_artifact(
    deployment: DeploymentDirectory,
    student: Student,
    engine: str,
    precision: str,
    num_threads: int,
    test_alone: bool = False,
) -> tuple[Artifact, RememberedChoice | None]:
    """The artifact to run, from memory or timed now; no choice is needed, and None returned, where only one fits.

    Only files that are here count: a device may have fetched some of a deployment's. UserError if none works.
    `test_alone`: where one is here of several that fit, time that one too, in a process that it may crash.
    """
    fitting = fitting_artifacts(student, engine, precision)
    candidates = [artifact for artifact in fitting if (deployment.path / artifact.file).is_file()]
    if not candidates:
        raise UserError(f"student {student.index}: {_what_there_is(deployment, student, engine, precision)}")
    if len(candidates) == 1 and not (test_alone and len(fitting) > 1):
        return candidates[0], None
    path = _memory_of(deployment, student.index)
    device = device_key(engine, precision, num_threads)
    key = _hashed([sorted(artifact.sha256 for artifact in candidates), device])
    known = _read(path)
    if known is None or known.key != key:
        known = RememberedChoice.of(key, device, _choose(deployment, student, candidates, num_threads))
        _say(student, known)
        _remember(path, known)
    return next(a for a in candidates if a.file == known.artifact), known


def fitting_artifacts(student: Student, engine: str, precision: str) -> list[Artifact]:
    """Artifacts for this CPU and these settings."""
    asked = allowed(student.artifacts, this_cpu(), engine, precision)
    return [candidate.artifact for candidate in asked if not candidate.refused]


def same_kind(
    before: DeploymentDirectory, student: Student, engine: str, precision: str, num_threads: int
) -> Artifact | None:
    """The artifact of a new deployment's student that is like the one chosen here for the same network before.

    None where nothing tells: no choice was made, other settings, engines or network, or there is no such artifact.
    """
    known, students = _read(_memory_of(before, student.index)), before.manifest.students
    if known is None or known.device != device_key(engine, precision, num_threads) or student.index >= len(students):
        return None
    old = students[student.index]
    chosen = next((artifact for artifact in old.artifacts if artifact.file == known.artifact), None)
    if chosen is None or old.network != student.network:
        return None
    return next((a for a in fitting_artifacts(student, engine, precision) if _kind(a) == _kind(chosen)), None)


def device_key(engine: str, precision: str, num_threads: int) -> str:
    """Name what a choice depends on beside the files: CPU, engines, settings."""
    cpu = this_cpu()
    return _hashed([cpu.machine, sorted(cpu.features), engine_versions(), engine, precision, num_threads])


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
    deployment: DeploymentDirectory, student: Student, candidates: list[Artifact], num_threads: int
) -> EngineChoice:
    manifest = deployment.manifest
    for artifact in candidates:
        deployment.check(artifact)  # before the bytes reach an engine
    shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
    image = np.frombuffer(deployment.read(manifest.golden_input), np.uint8).reshape(shape)
    _log.info("student %d: timing %d artifacts, once", student.index, len(candidates))
    these = student.model_copy(update={"artifacts": tuple(candidates)})
    return choose_engine(deployment.path, these, image, num_threads=num_threads)


def _say(student: Student, choice: RememberedChoice) -> None:
    for file, reason in choice.refused.items():
        _log.warning("student %d: %s is not used: %s", student.index, file, reason)
    times = ", ".join(f"{file} {ms:g} ms" for file, ms in sorted(choice.times_ms.items(), key=lambda item: item[1]))
    _log.info("student %d: chose %s of %s", student.index, choice.artifact, times)


def _kind(artifact: Artifact) -> tuple[str, str, str]:
    return artifact.engine, artifact.precision, artifact.target


def _hashed(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _memory_of(deployment: DeploymentDirectory, index: int) -> Path:
    return deployment.path / f".engine-choice-{index}.json"


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
