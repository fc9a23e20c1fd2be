"""nonn-trainer status: how far a run is, from what its stages have written."""

import json
from pathlib import Path

import pytest
import tensorflow as tf

from trainer.checkpoint import TrainingState, save_checkpoint
from trainer.cli import main
from trainer.run_directory import RunDirectory

SETTINGS = {"dataset": "digits", "teacher": "cnn-8-16", "student": ["cnn-8-8"], "students": 2, "passes": 9}


def begun_run(path: Path) -> Path:
    run = RunDirectory.open(path, SETTINGS)
    run.stage("partition").finish({"modularity": 0.125, "filters": [[0], [1]]}, 3.0)
    distill = run.stage("distill")
    history = [{"pass": 1.0, "val_accuracy": 0.5}, {"pass": 2.0, "val_accuracy": 0.75}]
    variables = [tf.Variable([1.0, 2.0])]
    save_checkpoint(distill.folder / "checkpoint.npz", variables, TrainingState(57, 7200.0, history))
    return path


def test_a_run_in_the_middle_says_where_it_stands_and_what_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun_run(tmp_path / "run")
    assert main(["status", str(run)]) == 0
    shown = capsys.readouterr().out
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
            for line in shown.splitlines() if line.startswith("|")}  # fmt: skip
    assert rows["partition"] == ["finished", "", "3 s", "modularity 0.125"]
    assert rows["distill"] == ["begun", "2 of 9, step 57", "2.00 h", "val_accuracy 0.75"]
    assert rows["export"] == ["not begun", "", "", ""]
    assert f"next: nonn-trainer run --out {run}    # goes on with teacher" in shown


def test_status_writes_nothing_and_json_has_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begun_run(tmp_path / "run")
    before = sorted(run.rglob("*"))
    assert main(["status", str(run), "--json"]) == 0
    stages = {stage["stage"]: stage for stage in json.loads(capsys.readouterr().out)}
    assert stages["distill"]["passes"] == 2
    assert stages["distill"]["steps"] == 57
    assert stages["evaluate"]["state"] == "not begun"
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("damage", ["no run", "checkpoint"])
def test_what_is_no_run_is_named(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    if damage == "checkpoint":
        (begun_run(run) / "distill" / "checkpoint.npz").write_bytes(b"PK\x03\x04 torn")
    assert main(["status", str(run)]) == 65
    assert str(run) in capsys.readouterr().err
    assert run.exists() == (damage == "checkpoint")
