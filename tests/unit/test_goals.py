"""Goals are held against what benchmarks printed: figures are found where the printers put them, verdicts follow."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "fleet"))
import paper_tables
import soak
from chaos import Outcome
from engine_tables import Contender
from goals import GOALS, Goal, readme_table, summary
from record_figures import Figure, FigureError, tables
from reliability_page import section_of

OUTPUT = (
    "x\n\n| who | p50 ms | p95 |\n|---|---|---|\n| a | 1,234.5 | 2 |\n| a b | 7.25x *estimated* | - |\n\n5 % (goal 9 %)"
)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    keep(tmp_path, "one", OUTPUT)
    return tmp_path


def keep(folder: Path, name: str, output: str) -> None:
    (folder / f"{name}.json").write_text(json.dumps({"output": output}))


def test_a_figure_is_a_cell_or_a_match(records: Path) -> None:
    assert tables(OUTPUT)[0][1] == [["a", "1,234.5", "2"], ["a b", "7.25x *estimated*", "-"]]
    assert Figure("one", "a |", "p50").number(records) == 1234.5
    assert Figure("one", "a b", "p50").number(records) == 7.25
    assert Figure("one", r"(\d) % \(goal").number(records) == 5
    assert Figure("two", "a", "p50").number(records) is None


@pytest.mark.parametrize(("row", "column"), [("c", "p50"), ("a", "p99"), ("a b", "p95"), (r"(\d) of 9", "")])
def test_a_figure_that_is_not_there_is_an_error(records: Path, row: str, column: str) -> None:
    with pytest.raises(FigureError):
        Figure("one", row, column).number(records)


def test_goals_are_met_missed_or_open(records: Path) -> None:
    figure = Figure("one", "a b", "p50")
    assert Goal("g", 7, figure, "s", unit="x").row(records) == (
        "| [g](#s) | at least 7x | 7.25x *estimated* | met |",
        True,
    )
    assert Goal("g", 7, figure, "s", is_most=True).row(records)[1] is False
    assert Goal("g", Figure("one", "a |", "p50"), figure, "s", whose="paper").row(records) == (
        "| [g](#s) | paper 1234.5 | 7.25 *estimated* | **lower** |",
        False,
    )
    assert Goal("g", 7, Figure("two", "", "lost"), "s").row(records)[1] is None
    missed = Goal("g", 8, figure, "s", because="So it is.")
    assert missed.sentence(records) == "- g: 7.25, goal 8. So it is."


def test_the_summary_stands_without_any_record(tmp_path: Path) -> None:
    assert f"0 met or higher, 0 missed or lower, {len(GOALS)} not measured yet." in summary(tmp_path)
    assert "not measured yet" in readme_table(tmp_path)


def goal(record: str, row: str) -> Goal:
    return next(goal for goal in GOALS if (goal.ours.record, goal.ours.row) == (record, row))


def test_the_chaos_suite_prints_what_the_goal_reads(tmp_path: Path) -> None:
    outcomes = [
        Outcome("no fault", Counter(complete=9), 0.1),
        Outcome("killed", Counter({"complete": 5, "lost": 2, "abandoned (restart)": 1}), None, "never"),
    ]
    keep(tmp_path, "faults", section_of(outcomes, ["memory: not possible on this machine"], 50))
    line, met = goal("faults", "**all**").row(tmp_path)
    assert (line.split(" | ")[2], met) == ("2", False)


def test_the_soak_prints_what_the_goal_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = [{"at_s": 5.0 * n, "broker": [10_000_000 + n * 10_000, 9]} for n in range(40)]
    report = soak.summary(samples, [(n, 2.0) for n in range(100)], {"complete": 99}, 100, 0, {"broker": 1.0})
    soak.show(report | {"frames_per_s": 20.0})
    keep(tmp_path, "soak", capsys.readouterr().out)
    line, met = next(goal for goal in GOALS if goal.ours.record == "soak").row(tmp_path)
    assert ("7.2" in line, met) == (True, False)
    assert Figure("soak", "", "lost").number(tmp_path) == 1


def contender(network: str, cpu_us: float, rss_mb: float, size_bytes: int, joules: list[float]) -> Contender:
    return Contender(
        network, "litert", "float32", Path("x"), size_bytes, version="litert 1", features=np.ones(2, np.float32),
        base_rss_mb=40, rss_mb=rss_mb, times_us=[cpu_us], cpu_us=[cpu_us], joules=joules, meter="hwmon",
    )  # fmt: skip


@pytest.mark.parametrize("joules", [[], [0.5]])
def test_the_papers_tables_hold_each_ratio_and_say_where_ours_is_lower(
    joules: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = ({"name": "t", "parameters": 900, "macs": 9e6}, {"name": "s", "parameters": 20, "macs": 1e6})
    pairs = [
        paper_tables.Pair(
            key, [contender("t", 4000, 140, 4000, joules)], [contender("s", 100, 42, 100, joules)],
            tuple(network | {"trained": key == "wrn"} for network in networks), 10.0,
        ) for key in ("wrn", "vgg")
    ]  # fmt: skip
    pairs[0].accuracies = paper_tables.Accuracies(91.6, 90.2, 10_000, 0, 0)
    for pair in pairs:
        paper_tables.print_pair(pair)
    paper_tables.print_ratios(pairs)
    output = capsys.readouterr().out
    keep(tmp_path, "paper-tables", output)
    expected = {"-0.86 | points": False, "49.89x": False, "12.44x": True, "14.36x": not joules, "33x": True,
                "50x | memory (abstract): bytes": False, "50x | memory (abstract): peak beyond": True,
                "2.16x": True, "2.04x": True, "1.2x": not joules}  # fmt: skip
    for row, met in expected.items():
        assert goal("paper-tables", row).row(tmp_path)[1] is met, row
    assert output.count("**lower**") == (7 if joules else 4)  # each with a sentence
    assert "**lower** |  |" not in output
    assert ("*estimated*" in output) is (not joules)
    assert "| accuracy, % | 93.00 -> 91.47 | -1.53 | not trained here | | |" in output
    assert Figure("paper-tables", "latency", "here").text(tmp_path) == "4.00 -> 0.10"
