"""Runs the commands of docs/cookbook.md as they stand there."""

import csv
import json
import re
import subprocess
import time

import pytest

CLASSES = {"circle", "square", "triangle"}


@pytest.fixture(scope="module")
def recipes(repository):
    text = (repository / "docs/cookbook.md").read_text()
    parts = re.split(r"^## (\d+)\. .*$", text, flags=re.MULTILINE)[1:]
    return {
        int(number): re.findall(r"^```sh\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)
        for number, body in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.fixture
def cook(kitchen, recipes):
    def run(number, timeout=120, **environment):
        [commands] = recipes[number]
        done = subprocess.run(
            ["bash", "-eu", "-c", commands], cwd=kitchen.folder, capture_output=True, text=True,
            env={**kitchen.environment, **environment}, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_there_are_ten(recipes):
    assert sorted(recipes) == list(range(1, 11))


def test_1_a_picture_over_mqtt(cook):
    name, probability = cook(1).split()
    assert name in CLASSES
    assert 1 / 3 <= float(probability) <= 1


def test_2_an_alarm_needs_three_seconds(cook, kitchen):
    wanted = json.loads(
        subprocess.run(
            ["nonn-coordinator", "classify", "--json", "photo.jpg"], cwd=kitchen.folder, env=kitchen.environment,
            capture_output=True, text=True, timeout=100, check=True,
        ).stdout
    )["answer"]["class_name"]  # fmt: skip
    frames = subprocess.Popen(
        ["bash", "-c", "exec nonn-coordinator classify --source door $(yes photo.jpg | head -4000) > /dev/null"],
        cwd=kitchen.folder, env=kitchen.environment,
    )  # fmt: skip
    try:
        began = time.monotonic()
        cook(2, ALARM_CLASS=wanted)
        assert time.monotonic() - began >= 3
    finally:
        frames.kill()
        frames.wait()
    alarm = subprocess.run(
        ["bash", "-c", "mosquitto_sub $BROKER -W 5 -C 1 -t alarm/door"], env=kitchen.environment, capture_output=True,
        text=True, timeout=30,
    )  # fmt: skip
    assert alarm.stdout.strip() == wanted


def test_3_two_cameras(cook):
    counted = [line.split() for line in cook(3).splitlines()]
    assert {source for _, source, _ in counted} == {"front", "yard"}
    assert sum(int(count) for count, _, _ in counted) == 4
    assert {name for _, _, name in counted} <= CLASSES


def test_4_a_replica(cook):
    lines = cook(4).splitlines()
    assert [line.split()[:2] for line in lines] == [["pi-0", "online"], ["pi-spare", "online"]]


def test_5_a_table(cook, kitchen):
    cook(5)
    rows = list(csv.reader((kitchen.folder / "answers.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["photos/0.jpg", "photos/1.jpg", "photos/2.jpg"]
    assert {row[1] for row in rows} <= CLASSES


def test_6_another_site(cook):
    output = cook(6)
    assert "site barn" in output
    assert "no devices yet" in output
    assert "pi-0" not in output


def test_7_accuracy(cook, kitchen):
    output = cook(7)
    report = json.loads((kitchen.folder / "report.json").read_text())
    counted = {name: int(float(n)) for name, n in re.findall(r'outcome="(\w+)"} (\S+)', output)}
    assert sum(counted.values()) == 6
    assert counted.get("right", 0) == round(report["accuracy"] * 6)


def test_8_http(cook):
    name, health = cook(8).split()
    assert name in CLASSES
    assert health == "ok"


def test_9_home_assistant(cook, kitchen):
    subprocess.run(
        ["nonn-coordinator", "classify", "photo.jpg", "--source", "hall"], cwd=kitchen.folder,
        env=kitchen.environment, check=True, timeout=100, capture_output=True,
    )  # fmt: skip
    time.sleep(1.5)
    output = cook(9)
    assert "homeassistant/image/" in output
    assert "-source-hall/class/config" in output
    assert "-device-pi-0/connectivity/config" in output
    assert re.search(r"(\d+) announced", output)[1] == re.search(r"(\d+) removed", output)[1]


@pytest.mark.slow
def test_10_a_data_set_of_ones_own(cook, kitchen):
    cook(10, timeout=280)
    manifest = json.loads((kitchen.folder / "run/export/manifest.json").read_text())
    assert manifest["classes"] == ["cup", "spoon"]
    assert len(manifest["students"]) == 2
