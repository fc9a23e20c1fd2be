"""The documents say what benchmarks/records holds; the recorder keeps what a command printed, and no more."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import results_page
from record_figures import Figure

ROOT = Path(__file__).parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"
RECORD = BENCHMARKS / "record.py"
RECORDS = sorted((BENCHMARKS / "records").rglob("*.json"))

# One of these in the command or the output: how often something was done.
SAYS_N = re.compile(
    r"n = \d|\| n \||\d (?:test images|frames|faults|training images)|--(?:frames|rounds|repeat) \d"
    r"|\| (?:seeds|frames) \||s for each row|--networks (?:\S+ ){3}"
)


def record(*words: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, RECORD, *words]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_pages_are_what_the_records_say() -> None:
    subprocess.run([sys.executable, BENCHMARKS / "results_page.py", "--check"], check=True)


def test_a_page_that_was_typed_into_is_found(tmp_path: Path) -> None:
    page = "a\n<!-- result: training -->\nFigures of mine.\n<!-- end -->\nb\n"
    filled = results_page.fill(page, BENCHMARKS / "records")
    assert "of mine" not in filled
    assert filled.startswith("a\n<!-- result: training -->\n```sh\npython benchmarks/training.py")
    assert filled.endswith("<!-- end -->\nb\n")
    assert results_page.fill(filled, BENCHMARKS / "records") == filled
    assert "*Not measured yet.*" in results_page.fill(page, tmp_path)


@pytest.mark.parametrize("file", RECORDS, ids=lambda path: path.stem)
def test_every_record_says_its_circumstances_and_n_and_no_folder_of_whoever_made_it(file: Path) -> None:
    content = results_page.read(file)
    assert SAYS_N.search(content["command"] + "\n" + content["output"])
    assert content["versions"]["python"]
    assert re.search(r"\d cores", content["machine"])
    assert not re.search(r"(?<![\w.])/(?:home|root|work|tmp|mnt|srv|Users)/", file.read_text())


def test_a_record_holds_command_output_and_circumstances(tmp_path: Path) -> None:
    file = tmp_path / "here" / "x.json"
    assert record("--to", file, sys.executable, "-c", "print('| a |')").returncode == 0
    content = results_page.read(file)
    assert content["output"] == "| a |"
    assert content["command"].startswith("python -c ")
    assert "missed" not in content


def test_files_of_the_user_lose_their_folders(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    words = [sys.executable, "-c", f"print('read {tmp_path}/deep/runs/one.json, {ROOT}/docs and /sys/class/hwmon')"]
    own = {"cwd": ROOT, "check": True, "capture_output": True}
    subprocess.run([sys.executable, RECORD, "--to", file, *words], env={"TMPDIR": str(tmp_path.parent)}, **own)
    assert results_page.read(file)["output"] == f"read runs/one.json, {ROOT.name}/docs and /sys/class/hwmon"


def test_the_commit_is_marked_for_changed_programs_but_not_for_records_and_pages(tmp_path: Path) -> None:
    for name in ("benchmarks/records/x.json", "docs/x.md", "docs/examples/x.json", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    shutil.copy(RECORD, tmp_path / "benchmarks")

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e@x", *words], check=True)

    def commit() -> str:
        command = [sys.executable, "-c", "import record; print(record.commit())"]
        found = subprocess.run(command, cwd=tmp_path / "benchmarks", check=True, capture_output=True, text=True)
        return found.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "c")
    clean = commit()
    assert re.fullmatch("[0-9a-f]{10}", clean)
    for name in ("benchmarks/records/x.json", "docs/x.md", "README.md"):
        (tmp_path / name).write_text("2")
    assert commit() == clean
    (tmp_path / "docs/examples/x.json").write_text("2")
    assert commit() == clean + "+"


@pytest.mark.parametrize(("flags", "status"), [((), 3), ((), 1), (("--verdict",), 3)])
def test_a_failed_command_leaves_the_earlier_record(tmp_path: Path, flags: tuple[str, ...], status: int) -> None:
    file = tmp_path / "x.json"
    file.write_text("earlier")
    ended = record(*flags, "--to", file, sys.executable, "-c", f"print('| a |'); raise SystemExit({status})")
    assert ended.returncode == 1
    assert "nothing recorded" in ended.stderr
    assert file.read_text() == "earlier"


def test_a_missed_goal_is_recorded_and_shown(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    ended = record("--verdict", "--to", file, sys.executable, "-c", "print('| 9 |'); raise SystemExit(1)")
    assert ended.returncode == 1
    assert "**It missed a goal of its own.**" in results_page.block(file)
    assert record("--verdict", "--to", file, sys.executable, "-c", "print('| 1 |')").returncode == 0
    assert "missed" not in results_page.block(file)


def test_what_somebody_sends_in_from_a_board_is_shown(tmp_path: Path, tiny: Path) -> None:
    sent = tmp_path / "results-on-pi.json"
    command = [sys.executable, BENCHMARKS / "on_device.py", tiny, "--sustain-s", "0.2", "--starts", "1"]
    assert record("--to", sent, *command).returncode == 0
    page = "<!-- boards -->\n<!-- end -->\n"
    assert "*No file has been sent in yet.*" in results_page.fill(page, tmp_path)
    (tmp_path / "boards").mkdir()
    shutil.copy(sent, tmp_path / "boards" / "pi-3b-plus.json")
    filled = results_page.fill(page, tmp_path)
    assert "**pi-3b-plus**" in filled
    assert "python benchmarks/on_device.py" in filled
    assert re.search(r"\| 0 \| ai-edge-litert \S+ \| int8 \| [\d.]+ \|", filled)
    assert "Steady load of student-0" in filled
    assert "| start to first answer" in filled
    assert str(tmp_path) not in filled


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not readable"),
        ("[]", "not an object"),
        ('{"command": "x"}', "without a proper date"),
        (None, "holds a comment"),
    ],
)
def test_a_file_that_is_no_record_is_one_clear_error(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "boards" / "pi.json"
    file.parent.mkdir()
    if content is None:
        whole = json.loads(RECORDS[0].read_text()) | {"output": "<!-- end --> and more"}
        content = json.dumps(whole)
    file.write_text(content)
    with pytest.raises(results_page.RecordError, match=said):
        results_page.fill("<!-- boards -->\n<!-- end -->\n", tmp_path)


def test_the_examples_say_the_recorded_accuracies() -> None:
    text = (ROOT / "docs" / "examples" / "README.md").read_text()
    for name in ("cifar10-2x-wrn-16-1", "cifar10-2x-wrn-16-1-v2"):
        accuracy = Figure("subsets", f"{name} | 0, 1", "accuracy").text()
        row = next(line for line in text.splitlines() if line.startswith(f"| [{name}]"))
        assert accuracy
        assert accuracy in row
