"""Runs that share a teacher's outputs."""

import json

import pytest

from edge_agent.console.exit_codes import UserError
from trainer.reuse import link_teacher
from trainer.run_directory import RunDirectory

SETTINGS = {"dataset": "digits", "teacher": "cnn-4"}


@pytest.fixture
def finished(tmp_path):
    run = RunDirectory.open(tmp_path / "first", SETTINGS)
    for name in ("teacher", "activations"):
        stage = run.stage(name)
        stage.claim({"views": 4})
        (stage.folder / "shard.npz").write_bytes(b"outputs")
        stage.finish({"filters": 4}, 1.0)
    return run


def test_a_run_begins_with_the_teachers_outputs_of_another(tmp_path, finished):
    run = RunDirectory.open(tmp_path / "second", {**SETTINGS, "students": 3})
    link_teacher(finished.path, run)
    assert run.stage("activations").results() == {"filters": 4}
    assert (run.path / "activations" / "shard.npz").samefile(finished.path / "activations" / "shard.npz")
    with pytest.raises(UserError, match=r"made with views = 4, which is now 2"):
        run.stage("activations").claim({"views": 2})
    assert not list(run.path.glob(".*"))


def test_stages_that_are_there_stay(tmp_path, finished):
    run = RunDirectory.open(tmp_path / "second", SETTINGS)
    run.stage("teacher").finish({"filters": 9}, 1.0)
    link_teacher(finished.path, run)
    assert run.stage("teacher").results() == {"filters": 9}


def test_an_unfinished_run_is_refused(tmp_path, finished):
    run = RunDirectory.open(tmp_path / "second", SETTINGS)
    (finished.path / "activations" / "stage.json").unlink()
    with pytest.raises(UserError, match=r"first: its stage activations is not finished"):
        link_teacher(finished.path, run)
    assert json.loads((run.path / "run.json").read_text())["configuration"]["teacher"] == "cnn-4"
