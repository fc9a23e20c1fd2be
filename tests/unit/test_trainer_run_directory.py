import json

import numpy as np
import pytest

from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.networks import catalogue
from trainer.npz_file import read_arrays, write_arrays
from trainer.recipes import recipe_names, recipe_settings
from trainer.run_directory import RunDirectory

GIVEN = {"dataset": "digits", "teacher": "cnn-8-16", "students": "3", "student": ("cnn-4",)}


def test_a_run_keeps_its_settings_and_what_made_it(tmp_path):
    RunDirectory.open(tmp_path / "run", GIVEN)
    content = json.loads((tmp_path / "run/run.json").read_text())
    assert content["configuration"]["students"] == 3
    assert content["configuration"]["crop_pad"] == 1  # the default for digits, not the general one
    assert content["versions"]["numpy"] == np.__version__
    assert {"created", "commit", "machine"} <= content.keys()
    assert RunDirectory.open(tmp_path / "run", {}).configuration.teacher == "cnn-8-16"


def test_a_run_of_another_configuration_names_the_setting(tmp_path):
    RunDirectory.open(tmp_path, GIVEN).stage("teacher").claim({"seed": 0})
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UserError, match=r"students = 3, asked for 4"):
        RunDirectory.open(tmp_path, {**GIVEN, "students": "4"})
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_run_that_has_made_nothing_takes_other_settings(tmp_path):
    # As after "give --image-size": the first stage has opened its folder and found that the images do not fit.
    RunDirectory.open(tmp_path, GIVEN).stage("teacher")
    created = json.loads((tmp_path / "run.json").read_text())["created"]
    assert RunDirectory.open(tmp_path, {"image_size": (32, 32)}).configuration.image_size == (32, 32)
    again = RunDirectory.open(tmp_path, {}).configuration
    assert (again.image_size, again.students) == ((32, 32), 3)
    assert json.loads((tmp_path / "run.json").read_text())["created"] == created


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"students": "0"}, "students: expected greater than or equal to 1"),
        ({"students": "many"}, "students"),
        ({"partition": "best"}, "partition"),
        ({"failout": "1.5"}, "failout"),
        ({"student": ("cnn-4", "cnn-8")}, "2 networks for 3 students"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_setting_is_named_and_leaves_nothing(tmp_path, change, words):
    with pytest.raises(UserError, match=words) as trouble:
        RunDirectory.open(tmp_path / "run", {**GIVEN, **change})
    assert trouble.value.exit_code == ExitCode.CONFIGURATION
    assert not (tmp_path / "run").exists()


def test_a_missing_setting_is_asked_for(tmp_path):
    with pytest.raises(UserError, match=r"dataset: expected --dataset, to start a new run"):
        RunDirectory.open(tmp_path / "run", {})


def test_a_damaged_run_file_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json"):
        RunDirectory.open(tmp_path, {})


def test_a_stage_whose_inputs_changed_names_the_input(tmp_path):
    stage = RunDirectory.open(tmp_path, GIVEN).stage("partition")
    stage.claim({"students": 3, "seed": 0})
    stage.claim({"students": 3, "seed": 0})
    with pytest.raises(UserError, match=r"seed = 0, which is now 1"):
        stage.claim({"students": 3, "seed": 1})


def test_a_stage_is_finished_only_with_its_record(tmp_path):
    stage = RunDirectory.open(tmp_path, GIVEN).stage("partition")
    assert not stage.finished
    with pytest.raises(UserError, match=r"partition is not finished; run it first"):
        stage.results()
    stage.finish({"sizes": [1, 2]}, 1.5)
    assert stage.results() == {"sizes": [1, 2]}


def test_a_truncated_array_file_is_named(tmp_path):
    file = tmp_path / "a.npz"
    write_arrays(file, values=np.arange(1000))
    for length in (0, 10, 1000, file.stat().st_size - 1):
        (tmp_path / "b.npz").write_bytes(file.read_bytes()[:length])
        with pytest.raises(UserError, match=r"b\.npz"):
            read_arrays(tmp_path / "b.npz")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_makes_a_run(tmp_path, name):
    settings = recipe_settings(name)
    run = RunDirectory.open(tmp_path / "run", {"teacher": "teacher.keras", **settings})
    for network in run.configuration.student_networks():
        catalogue.check_name(network)


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"no such file; expected .*cifar10-wrn16-1, .*digits"):
        recipe_settings("cifar11")
