"""The tables of benchmarks/engines: ratios are of what was measured, per engine, and the same in JSON."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from engine_tables import Contender, figures_of, table, teacher_figures, teacher_table


def contender(network: str, engine: str, cpu_us: list[float], rss_mb: float, size_bytes: int, precision="float32"):
    return Contender(
        network, engine, precision, Path("x"), size_bytes, version=f"{engine} 1.0", features=np.ones(4, np.float32),
        base_rss_mb=40.0, rss_mb=rss_mb, times_us=[2 * value for value in cpu_us], cpu_us=cpu_us,
    )  # fmt: skip


TEACHER = [contender("teacher", "litert", [4000, 5000, 9000], 120, 36_000_000)]
STUDENT = [
    contender("wrn-16-1", "litert", [90, 100, 300], 48, 750_000),
    contender("wrn-16-1", "litert", [30, 40, 50], 46, 220_000, "int8"),
    contender("wrn-16-1", "ncnn", [70, 80, 90], 44, 740_000),
]


def test_teacher_and_student_are_compared_on_the_same_engine_and_precision_alone():
    (figures,) = teacher_figures(TEACHER, STUDENT)
    assert figures["engine"] == "litert 1.0"
    assert figures["latency"] == pytest.approx(50.0)
    assert figures["latency_by_min"] == pytest.approx(4000 / 90)
    assert figures["peak_rss"] == pytest.approx(2.5)
    assert figures["network_rss"] == pytest.approx(10.0)  # 80 MB beyond the interpreter's 40, against 8
    assert figures["file"] == pytest.approx(48.0)
    text = teacher_table(TEACHER, STUDENT)
    row = next(line for line in text.splitlines() if line.startswith("| litert"))
    assert row == (
        "| litert 1.0 | float32 | 5000, 100 | 50.0x | 120, 48 | 2.50x | 80.0, 8.0 | 10.0x | 36000, 750 | 48.0x |"
    )
    assert "12.44x" in text


def test_ratios_of_a_table_are_to_litert_and_ncnn_and_the_fastest_comes_first():
    rows = [line for line in table(STUDENT).splitlines() if " 1.0 | " in line]
    assert [row.split(" | ")[2] for row in rows] == ["int8", "float32", "float32"]
    assert "| 0.33, 0.40 | 0.43, 0.50 |" in rows[0]
    assert figures_of(STUDENT[1])["network_rss_mb"] == pytest.approx(6.0)
