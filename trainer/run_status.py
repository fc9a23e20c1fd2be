"""How far a run is: per stage what is done, at which pass it stands, what validation said last. Reads only."""

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.console.exit_codes import UserError
from trainer.run_directory import STAGE_FOLDERS, RunDirectory, Stage, read_json

SHOWN = ("val_accuracy", "modularity", "accuracy")  # of a stage's results, what one line has room for


@dataclass(frozen=True)
class StageStatus:
    """One stage; `passes` only where the stage trains."""

    stage: str
    state: str  # finished, begun, not begun
    seconds: float = 0.0
    passes: int | None = None
    passes_planned: int | None = None
    steps: int | None = None
    results: dict[str, float] | None = None


def run_status(path: Path) -> list[StageStatus]:
    """Status of every stage in order; UserError if `path` is no run."""
    if not (path / "run.json").exists():
        raise UserError(f"{path}: no run.json; expected the directory of a run")
    run = RunDirectory.open(path, {})
    planned = {"teacher": run.configuration.teacher_passes, "distill": run.configuration.passes}
    return [
        _stage_status(name, Stage(name, path / folder), planned.get(name)) for name, folder in STAGE_FOLDERS.items()
    ]


def print_status(path: Path, as_json: bool) -> None:
    """Show it on stdout, as a Markdown table or as JSON."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    stages = run_status(path)
    if as_json:
        print(json.dumps([asdict(stage) for stage in stages], indent=1))
        return
    table = Table("stage", "state", "passes", "time", "last figures", box=box.MARKDOWN)
    for stage in stages:
        figures = ", ".join(f"{key} {value:.4g}" for key, value in (stage.results or {}).items())
        table.add_row(stage.stage, stage.state, _passes(stage), _duration(stage.seconds), figures)
    console = Console(width=120, highlight=False)
    with console.capture() as drawn:
        console.print(table)
    print("\n".join(line.rstrip() for line in drawn.get().strip().splitlines()))
    unfinished = next((stage.stage for stage in stages if stage.state != "finished"), None)
    if unfinished is not None:
        print(f"\nnext: nonn-trainer run --out {path}    # goes on with {unfinished}")


def _stage_status(name: str, stage: Stage, planned: int | None) -> StageStatus:
    if stage.finished:
        content = read_json(stage.folder / "stage.json")
        trained = planned if (stage.folder / "history.json").exists() else None
        return StageStatus(name, "finished", content["seconds"], trained, trained, results=_shown(content["results"]))
    checkpoint = stage.folder / "checkpoint.npz"
    if not checkpoint.exists():
        return StageStatus(name, "begun" if stage.folder.exists() else "not begun", passes_planned=planned)
    state = _training_state(checkpoint)
    history = state["history"]
    last = _shown(history[-1]) if history else None
    return StageStatus(name, "begun", state["seconds"], len(history), planned, state["step"], last)


def _training_state(checkpoint: Path) -> dict[str, Any]:
    """The state alone: weights and optimiser stay on disk."""
    try:
        with checkpoint.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            state: dict[str, Any] = json.loads(arrays["state"].tobytes())
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{checkpoint}: not a readable checkpoint ({error})") from None
    return state


def _shown(results: dict[str, Any]) -> dict[str, float]:
    return {key: float(results[key]) for key in SHOWN if isinstance(results.get(key), int | float)}


def _passes(stage: StageStatus) -> str:
    if stage.passes is None or stage.passes_planned is None:
        return ""
    step = f", step {stage.steps:,}" if stage.steps is not None else ""
    return f"{stage.passes} of {stage.passes_planned}{step}"


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.2f} h"
    return f"{seconds:.0f} s" if seconds else ""
