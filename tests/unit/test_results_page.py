"""docs/results.md says what benchmarks/records holds; the recorder keeps what a command printed."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
RECORD = ROOT / "benchmarks" / "record.py"


def test_the_page_is_what_the_records_say() -> None:
    subprocess.run([sys.executable, ROOT / "benchmarks" / "results_page.py", "--check"], check=True)


def test_a_record_holds_command_output_and_circumstances(tmp_path: Path) -> None:
    file = tmp_path / "here" / "x.json"
    command = [sys.executable, "-c", "print('| a |')"]
    subprocess.run([sys.executable, RECORD, "--to", file, *command], check=True, capture_output=True)
    record = json.loads(file.read_text())
    assert record["output"] == "| a |"
    assert record["command"].startswith("python -c ")
    assert {"commit", "date", "machine", "versions", "load_average_before", "seconds"} <= record.keys()


def test_a_failed_command_leaves_the_earlier_record(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("earlier")
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    ended = subprocess.run([sys.executable, RECORD, "--to", file, *command], check=False, capture_output=True)
    assert ended.returncode == 1
    assert file.read_text() == "earlier"
