"""A run on disk: run.json, one folder per stage, each finished by a stage.json that names its inputs."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.configuration import DATASET_DEFAULTS, RunConfiguration

# Command -> folder of its stage.json; RUN/export is the deployment and nothing else.
STAGE_FOLDERS = {
    "teacher": "teacher",
    "activations": "activations",
    "partition": "partition",
    "distill": "distill",
    "export": "exporting",
    "evaluate": "evaluation",
}
VERSIONED_PACKAGES = ("nonn-edge", "tensorflow-cpu", "tensorflow", "keras", "numpy", "networkx", "ai-edge-litert")


@dataclass(frozen=True)
class RunDirectory:
    """Paths and records of one run."""

    path: Path
    configuration: RunConfiguration

    @classmethod
    def open(cls, path: Path, given: Mapping[str, Any]) -> "RunDirectory":
        """Create the run from the `given` settings, or reopen it; UserError names a setting that differs.

        While nothing has been made, as when the data set asked for another setting, a run takes new ones.
        """
        file = path / "run.json"
        if not file.exists():
            return cls._create(path, given)
        content = read_json(file)
        stored = content.get("configuration", {})
        configuration = _validated({**stored}, f"{file}: ")
        asked = _validated({**stored, **given}, "")
        if asked != configuration and not cls._anything_made(path):
            write_json(file, {**content, "configuration": asked.model_dump(mode="json")})
            return cls(path, asked)
        kept = configuration.model_dump(mode="json")
        for key, value in asked.model_dump(mode="json").items():
            if value != kept[key]:
                raise UserError(
                    f"{path}: this run has {key} = {kept[key]!r}, asked for {value!r}; "
                    "take another --out, or the run's own setting"
                )
        return cls(path, configuration)

    @classmethod
    def _create(cls, path: Path, given: Mapping[str, Any]) -> "RunDirectory":
        defaults = DATASET_DEFAULTS.get(str(given.get("dataset")), {})
        configuration = _validated({**defaults, **given}, "")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; expected a folder to write to", ExitCode.IO_ERROR) from None
        content = {
            "configuration": configuration.model_dump(mode="json"),
            "created": now_text(),
            "commit": current_commit(),
            "versions": installed_versions(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        write_json(path / "run.json", content)
        return cls(path, configuration)

    @staticmethod
    def _anything_made(path: Path) -> bool:
        return any(any((path / folder).glob("*")) for folder in STAGE_FOLDERS.values())

    def stage(self, name: str) -> "Stage":
        """Open the folder of a stage, made if it is not there."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return Stage(name, folder)


@dataclass(frozen=True)
class Stage:
    """One step of a run; `stage.json` exists only when it is finished."""

    name: str
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether the stage ran to its end."""
        return (self.folder / "stage.json").exists()

    def claim(self, inputs: Mapping[str, Any]) -> None:
        """Fix the inputs when the stage starts; UserError names the input that has changed since."""
        file = self.folder / "inputs.json"
        wanted = json.loads(json.dumps(dict(inputs)))
        if not file.exists():
            write_json(file, wanted)
            return
        kept = read_json(file)
        for key in sorted(kept.keys() | wanted.keys()):
            if kept.get(key) != wanted.get(key):
                raise UserError(
                    f"{self.folder}: made with {key} = {kept.get(key)!r}, which is now {wanted.get(key)!r}; "
                    "take another --out, or delete this folder and those of the stages after it"
                )

    def finish(self, results: Mapping[str, Any], seconds: float) -> None:
        """Record the end of the stage; `results` are its metrics."""
        write_json(
            self.folder / "stage.json", {"finished": now_text(), "seconds": round(seconds, 2), "results": dict(results)}
        )

    def results(self) -> dict[str, Any]:
        """Metrics of the finished stage; UserError if it has not been run."""
        if not self.finished:
            raise UserError(f"{self.folder}: the stage {self.name} is not finished; run it first")
        results: dict[str, Any] = read_json(self.folder / "stage.json")["results"]
        return results


def file_hash(path: Path) -> str:
    """First 16 hex digits of a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_json(path: Path) -> Any:
    """Parse a JSON file; UserError if it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def now_text() -> str:
    """Return the present time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def installed_versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    versions = {"python": platform.python_version()}
    for package in VERSIONED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def current_commit() -> str | None:
    """Commit of the source tree this runs from; None outside a git tree."""
    folder = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def _validated(content: Mapping[str, Any], where: str) -> RunConfiguration:
    try:
        configuration = RunConfiguration.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        expected = f"{first['msg'].replace('Input should be ', 'expected ')} (got {first.get('input')!r})"
        if first["type"] == "missing":
            expected = f"expected --{name}, to start a new run"
        raise UserError(f"{where}{name}: {expected}", ExitCode.CONFIGURATION) from None
    if len(configuration.student) not in (1, configuration.students):
        raise UserError(
            f"{where}student: {len(configuration.student)} networks for {configuration.students} students; "
            "expected one for all or one for each",
            ExitCode.CONFIGURATION,
        )
    return configuration
