"""benchmarks/compare_runs.py puts runs side by side, and refuses runs that differ in more than their students."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import compare_runs


def write_run(folder: Path, networks: list[str], tested: float | None = None, **settings: Any) -> Path:
    students = [{"network": name, "parameters": 1000, "macs": 2_000_000} for name in networks]
    configuration = {"student": networks, "students": len(networks), "passes": 3, "small_passes": 2, "batch": 64,
                     "views": 3, "seed": 0, "failout": 0.1} | settings  # fmt: skip
    contents: dict[str, Any] = {
        "run.json": {"configuration": configuration},
        "export/manifest.json": {"students": students},
        "distill/history.json": [
            {"val_accuracy": 0.9, "seconds": 1800.0, "val_accuracy_without_0": 0.7, "val_accuracy_without_1": 0.8}
        ],
    }
    for name, content in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    if tested is not None:
        (folder / "evaluation.json").write_text(json.dumps({"accuracy": tested}))
    return folder


def test_two_runs_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two = write_run(tmp_path / "two", ["wrn-16-1"] * 2, tested=0.85)
    one = write_run(tmp_path / "one", ["wrn-16-2"], failout=0.0)
    monkeypatch.setattr("sys.argv", ["compare_runs.py", str(two), str(one)])
    assert compare_runs.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| 2 x wrn-16-1 | 2,000 | 4.0 M | 2.0 M | 90.00 % | 70.00 to 80.00 % | 85.00 % | 0.50 |"
    assert lines[3] == "| 1 x wrn-16-2 | 1,000 | 2.0 M | 2.0 M | 90.00 % | no answer | - | 0.50 |"


def test_runs_of_other_passes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two, longer = write_run(tmp_path / "a", ["wrn-16-1"]), write_run(tmp_path / "b", ["wrn-16-1"], passes=9)
    monkeypatch.setattr("sys.argv", ["compare_runs.py", str(two), str(longer)])
    assert compare_runs.main() == 64
    assert capsys.readouterr().err == f"error: {longer} differs from {two} in passes\n"
