"""The agent stays light: its peak memory up to the first answer, as the benchmark measures it."""

import json
import subprocess
import sys
from pathlib import Path


def test_the_agent_answers_within_its_memory_budget(repository: Path, tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(repository / "benchmarks/agent_footprint.py"), "--deployment", str(tiny)]
    found = subprocess.run(
        [*command, "--repeat", "1", "--json", str(tmp_path / "footprint.json")],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (tmp_path / "footprint.json").is_file(), found.stderr
    starts = json.loads((tmp_path / "footprint.json").read_text())["starts"]
    assert [(start["engine"], start["precision"]) for start in starts] == [("tflite", "int8"), ("tflite", "float32")]
    for start in starts:
        assert start["imported_heavy"] == []
        # Megabytes of 10^6. The goal is 70 (docs/runtimes.md): 65 with Python 3.11, 69 with 3.13, once 71.2 there for
        # a reason not found. This is a guard against growth, not the goal. Time depends on what else runs here.
        assert 30 < start["peak_rss_mb"] < 73
        assert start["seconds_min"] >= 0.02
        assert start["engine_version"] in found.stdout
