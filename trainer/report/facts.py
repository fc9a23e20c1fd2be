"""Everything a report may show of a run, read from its directory; what is not there yet is named, not an error."""

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.exit_codes import UserError
from trainer.filter_graph import load_filter_graph
from trainer.partition import Partition
from trainer.report.scores import Scores, evaluated_scores, validation_scores
from trainer.run_directory import STAGE_FOLDERS


@dataclass
class RunFacts:
    """One run; `gaps` says in words what is missing and which command makes it."""

    path: Path
    run: dict[str, Any]
    stages: dict[str, dict[str, Any]]  # stage.json of the finished ones
    partition: Partition | None = None
    matrix: NDArray[np.float64] | None = None  # F, (filters, filters)
    activity: NDArray[np.float64] | None = None  # (classes, filters)
    histories: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    manifest: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    gaps: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()

    @property
    def configuration(self) -> dict[str, Any]:
        """The run's settings."""
        settings: dict[str, Any] = self.run.get("configuration", {})
        return settings

    @property
    def student_count(self) -> int:
        """K."""
        return self.partition.students if self.partition else int(self.configuration.get("students", 0))

    @property
    def teacher_name(self) -> str:
        """A network's name, or that of its file."""
        return Path(str(self.configuration.get("teacher", "an unknown teacher"))).stem

    @property
    def preferred_precision(self) -> str:
        """What devices run by default, if the run made it."""
        made = self.configuration.get("precisions") or ["int8"]
        return "int8" if "int8" in made else str(made[0])

    @property
    def scores(self) -> Scores:
        """Accuracies on the test split, or on the validation split while that is all there is."""
        if self.evaluation is not None:
            return evaluated_scores(self.evaluation)
        last = (self.histories.get("distill") or [{}])[-1]
        return validation_scores(self.result("activations", "validation_accuracy"), last)

    def result(self, stage: str, key: str) -> Any:
        """One metric of a finished stage, else None."""
        return self.stages.get(stage, {}).get("results", {}).get(key)


def read_facts(path: Path) -> RunFacts:
    """Collect what the run has; UserError only if `path` is no run at all."""
    run = _json(path / "run.json")
    if not isinstance(run, dict):
        raise UserError(f"{path}: no run here; expected a directory with the run.json that nonn-trainer writes")
    facts = RunFacts(path, run, {})
    for stage, folder in STAGE_FOLDERS.items():
        content = _json(path / folder / "stage.json")
        if isinstance(content, dict):
            facts.stages[stage] = content
        elif stage != "evaluate":
            facts.gaps.append(f"The stage {stage} has not finished: nonn-trainer {stage} --out {path}")
    _read_partition(facts)
    for stage in ("teacher", "distill"):
        history = _json(path / stage / "history.json") or _history_so_far(path / stage / "checkpoint.npz")
        if isinstance(history, list) and history and all(isinstance(entry, dict) for entry in history):
            facts.histories[stage] = history
    facts.manifest = _object(path / "export" / "manifest.json")
    facts.evaluation = _evaluation(path / "evaluation.json")
    facts.classes = tuple(map(str, (facts.manifest or {}).get("classes", ())))
    if facts.evaluation is None:
        facts.gaps.append(f"The students have not been evaluated: nonn-trainer evaluate --out {path}")
    return facts


def _read_partition(facts: RunFacts) -> None:
    content = _object(facts.path / "partition" / "partition.json")
    if content is None:
        return
    try:
        facts.partition = Partition.from_dict(content)
        matrix, activity = load_filter_graph(facts.path / "partition" / "graph.npz")
    except UserError as error:
        facts.gaps.append(f"The partition cannot be shown: {error}")
        return
    if len(matrix) != len(facts.partition.student_of):
        facts.gaps.append("The filter graph and the partition differ in size: run the stage partition again.")
        return
    facts.matrix, facts.activity = matrix, activity


def _evaluation(path: Path) -> dict[str, Any] | None:
    """The evaluation if it is one that this version understands."""
    content = _object(path)
    try:
        if content is not None:
            evaluated_scores(content)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return content


def _history_so_far(checkpoint: Path) -> Any:
    """The passes that a training in progress has behind it."""
    try:
        with np.load(io.BytesIO(checkpoint.read_bytes()), allow_pickle=False) as arrays:
            return json.loads(arrays["state"].tobytes()).get("history")
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile):
        return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _object(path: Path) -> dict[str, Any] | None:
    content = _json(path)
    return content if isinstance(content, dict) else None
