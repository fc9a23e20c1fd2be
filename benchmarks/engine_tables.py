"""A measured engine, and tables of many."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# NoNN: Memory-Aware and Deployment-Friendly Network of Neural Networks, one student against its teacher.
PAPER_RATIOS = "The paper's best: latency 12.44x, memory 49.89x, 50x fewer weights per student, on its own devices."


@dataclass
class Contender:
    """One engine with one file."""

    network: str
    engine: str
    precision: str
    file: Path
    size_bytes: int
    worker: "subprocess.Popen[str] | None" = None
    version: str = ""
    features: Any = None
    start_ms: float = 0.0
    base_rss_mb: float = 0.0  # interpreter and NumPy, before the network was opened
    rss_mb: float = 0.0  # peak, megabytes of 10^6
    times_us: list[float] = field(default_factory=list)  # wall clock
    cpu_us: list[float] = field(default_factory=list)  # of the process: other programs' turns do not count
    joules: list[float] = field(default_factory=list)  # of one run, by turns; empty without a meter
    meter: str = "none"
    accuracy: float | None = None

    @property
    def network_rss_mb(self) -> float:
        """Peak memory beyond the interpreter's own."""
        return self.rss_mb - self.base_rss_mb

    def ask(self, line: str) -> dict[str, Any]:
        """Send one command, wait for its answer."""
        if not (self.worker and self.worker.stdin and self.worker.stdout):
            raise RuntimeError(f"{self.engine} was not started")
        self.worker.stdin.write(line + "\n")
        self.worker.stdin.flush()
        said = self.worker.stdout.readline()
        if not said:
            raise SystemExit(f"{self.engine}, {self.network}: its process ended with {self.worker.wait()}")
        answer: dict[str, Any] = json.loads(said)
        return answer


def table(group: list[Contender]) -> str:
    """Markdown table of one network, ratios to LiteRT float32."""
    base = next(c for c in group if (c.engine, c.precision) == ("litert", "float32"))
    ncnn = next((c for c in group if c.engine == "ncnn"), None)
    with_accuracy = any(c.accuracy is not None for c in group)
    lines = [
        f"\n**{base.network}**\n",
        "| network | engine | precision | min us | CPU us, median | n | of LiteRT f32 | of ncnn | RSS MB | kB | error |"
        + (" accuracy |" if with_accuracy else ""),
        "|---|---|---|---|---|---|---|---|---|---|---|" + ("---|" if with_accuracy else ""),
    ]
    for c in sorted(group, key=lambda c: min(c.times_us)):
        error = float(np.abs(c.features - base.features).max() / np.abs(base.features).max())
        lines.append(
            f"| {c.network} | {c.version} | {c.precision} | {min(c.times_us):.0f} | {np.median(c.cpu_us):.0f} "
            f"| {len(c.times_us)} | {_ratios(c, base)} | {_ratios(c, ncnn)} | {c.rss_mb:.0f} "
            f"| {c.size_bytes / 1e3:.0f} | {error:.1e} |" + (_percent(c.accuracy) if with_accuracy else "")
        )
    return "\n".join(lines)


def figures_of(contender: Contender) -> dict[str, Any]:
    """What was measured, for programs."""
    return {
        "network": contender.network, "engine": contender.version, "precision": contender.precision,
        "min_us": min(contender.times_us), "median_us": float(np.median(contender.times_us)),
        "cpu_us_median": float(np.median(contender.cpu_us)), "runs": len(contender.times_us),
        "peak_rss_mb": contender.rss_mb, "network_rss_mb": contender.network_rss_mb,
        "size_bytes": contender.size_bytes, "accuracy": contender.accuracy,
    }  # fmt: skip


def _percent(accuracy: float | None) -> str:
    return " |" if accuracy is None else f" {100 * accuracy:.2f} % |"


def _ratios(contender: Contender, base: Contender | None) -> str:
    if base is None:
        return ""
    by_median = np.median(contender.cpu_us) / np.median(base.cpu_us)
    return f"{min(contender.times_us) / min(base.times_us):.2f}, {by_median:.2f}"


def teacher_table(teacher: list[Contender], student: list[Contender]) -> str:
    """Teacher against one student on the same engine, beside the paper's ratios."""
    lines = [
        f"\n**{teacher[0].network} against {student[0].network}**, same engine: teacher, student\n",
        "| engine | precision | CPU us, median | ratio | peak RSS MB | ratio | network's MB | ratio | kB | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for t, s in _pairs(teacher, student):
        r = _pair_figures(t, s)
        lines.append(
            f"| {t.version} | {t.precision} | {r['teacher_us']:.0f}, {r['student_us']:.0f} | {r['latency']:.1f}x "
            f"| {t.rss_mb:.0f}, {s.rss_mb:.0f} | {r['peak_rss']:.2f}x "
            f"| {t.network_rss_mb:.1f}, {s.network_rss_mb:.1f} | {r['network_rss']:.1f}x "
            f"| {t.size_bytes / 1e3:.0f}, {s.size_bytes / 1e3:.0f} | {r['file']:.1f}x |"
        )
    return "\n".join([*lines, "", PAPER_RATIOS])


def teacher_figures(teacher: list[Contender], student: list[Contender]) -> list[dict[str, Any]]:
    """The same ratios for programs."""
    return [
        {"engine": t.version, "precision": t.precision, "student": s.network, **_pair_figures(t, s)}
        for t, s in _pairs(teacher, student)
    ]


def _pairs(teacher: list[Contender], student: list[Contender]) -> list[tuple[Contender, Contender]]:
    return [(t, s) for t in teacher for s in student if (t.engine, t.precision) == (s.engine, s.precision)]


def _pair_figures(teacher: Contender, student: Contender) -> dict[str, float]:
    teacher_us, student_us = float(np.median(teacher.cpu_us)), float(np.median(student.cpu_us))
    return {
        "teacher_us": teacher_us,
        "student_us": student_us,
        "latency": teacher_us / student_us,
        "latency_by_min": min(teacher.times_us) / min(student.times_us),
        "peak_rss": teacher.rss_mb / student.rss_mb,
        "network_rss": teacher.network_rss_mb / student.network_rss_mb,
        "file": teacher.size_bytes / student.size_bytes,
    }
