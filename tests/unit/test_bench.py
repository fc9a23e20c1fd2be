"""nonn-agent bench: its table and JSON, and where the energy comes from."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from edge_agent.bench import energy_of, estimate_millijoules, run_bench
from edge_agent.cli import main
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.energy import HwmonMeter, NoMeter, PowercapMeter, find_meter
from edge_agent.trial import Trial


def test_bench_prints_a_table(tiny, capsys, monkeypatch):
    monkeypatch.setattr("edge_agent.bench.MEASURE_S", 0.05)
    monkeypatch.setattr("edge_agent.bench.board_name", lambda: "Raspberry Pi 4 Model B Rev 1.5")
    assert run_bench(tiny, [1], 1, json=False) == ExitCode.OK
    table = capsys.readouterr().out
    assert table.count("tflite") == 2
    assert table.count("chosen") == 1
    titles = re.split(r"  +", table.splitlines()[1].strip())
    assert [title for title in titles if title != "throttled"] == [
        "student", "engine", "precision", "target", "median ms", "p95 ms", "min ms", "peak RSS MB", "artifact kB",
        "arena kB", "import ms", "mJ/inference", "energy is", "error",
    ]  # fmt: skip
    assert ("throttled" in titles) is (" no " in table)  # a PC does not know


def test_bench_as_json_has_every_figure_of_every_row(tiny, capsys, monkeypatch):
    monkeypatch.setattr("edge_agent.bench.MEASURE_S", 0.05)
    monkeypatch.setattr("edge_agent.bench.board_name", lambda: "Raspberry Pi 4 Model B Rev 1.5")
    assert main(["bench", "--deployment", str(tiny), "--students", "1", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    directory = open_deployment(tiny)
    assert (document["deployment"], document["num_threads"]) == (directory.id, 1)
    assert document["board"] == "Raspberry Pi 4 Model B Rev 1.5"
    rows = document["rows"]
    assert {row["precision"] for row in rows} == {"float32", "int8"}
    for row in rows:
        trial, listed = row["trial"], {a.file: a.size_bytes for a in directory.manifest.students[1].artifacts}
        assert 0 < trial["fastest_us"] <= trial["median_us"] <= trial["p95_us"]
        assert 10e6 < trial["peak_rss_bytes"] < 90e6
        assert trial["arena_bytes"] > 0
        assert trial["import_ms"] > 0
        assert row["size_bytes"] == listed[row["file"]]
        assert row["error"] <= directory.manifest.students[1].golden.tolerance
        assert row["throttled"] in (True, False, None)
        assert row["millijoules"] > 0
        if trial["joules"] is None:  # no power sensor: told to be a Pi 4, it estimates
            assert row["energy"] == "estimated"
            assert row["energy_source"].startswith("estimated: 0.93 W per busy core")
            assert row["millijoules"] == pytest.approx(trial["cpu_us"] * 0.93 / 1e3, abs=1e-6)
        else:
            assert row["energy"] == "measured"
    assert [row["chosen"] for row in rows].count(True) == 1


def test_bench_says_of_a_damaged_or_absent_file_that_it_is(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("edge_agent.bench.MEASURE_S", 0.05)
    folder = Path(shutil.copytree(tiny, tmp_path / "d"))
    (folder / "student-0.int8.tflite").write_bytes(b"TFL3")
    assert run_bench(folder, [0], 1, json=False) == ExitCode.OK
    assert "refused:" in capsys.readouterr().out
    (folder / "student-0.float32.tflite").unlink()
    assert run_bench(folder, [0], 1, json=True) == ExitCode.FAILED
    refused = {row["file"]: row["refused"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert "4 bytes, the manifest says" in refused["student-0.int8.tflite"]
    assert "No such file or directory" in refused["student-0.float32.tflite"]


def test_energy_is_measured_before_it_is_estimated_and_labelled():
    trial = Trial("e", (0.0,), 1, 1, 1, 100, 100, 100, 1, None, "none", 10, 1, 1)
    measured = dataclasses.replace(trial, joules=0.002, meter="hwmon")
    assert energy_of(measured, "Raspberry Pi 4 Model B") == (2.0, "measured", "hwmon")
    guessed = dataclasses.replace(trial, cpu_us=1000.0)
    assert energy_of(guessed, "Raspberry Pi 5 Model B")[:2] == (1.4, "estimated")
    assert energy_of(guessed, "Colossus")[:2] == (None, "unknown")


def test_bench_refuses_students_that_are_not_there(tiny):
    with pytest.raises(UserError, match="students 0 to 2"):
        run_bench(tiny, [3], 1, json=False)


def test_energy_is_measured_where_there_are_meters(tmp_path):
    assert isinstance(find_meter(tmp_path, tmp_path), NoMeter)
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").write_text("4000000")
    (zone / "max_energy_range_uj").write_text("5000000")
    (tmp_path / "intel-rapl:0:0").mkdir()
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("1")
    meter = find_meter(tmp_path, tmp_path)
    assert isinstance(meter, PowercapMeter)
    meter.start()
    (zone / "energy_uj").write_text("1000000")  # wrapped
    assert meter.stop() == pytest.approx(2.0)
    (tmp_path / "hwmon0").mkdir()
    (tmp_path / "hwmon0" / "power1_input").write_text("2500000")
    meter = find_meter(tmp_path, tmp_path)
    assert isinstance(meter, HwmonMeter)
    meter.start()
    assert 0 < meter.stop() < 2.5


def test_energy_is_estimated_and_says_so_elsewhere():
    assert estimate_millijoules(1000, "Raspberry Pi 4 Model B") == (
        0.93,
        "estimated: 0.93 W per busy core of a Raspberry Pi 4 Model B",
    )
    assert estimate_millijoules(1000, "Colossus")[0] is None
