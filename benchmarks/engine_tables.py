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
    rss_mb: float = 0.0
    times_us: list[float] = field(default_factory=list)  # wall clock
    cpu_us: list[float] = field(default_factory=list)  # of the process: other programs' turns do not count
    accuracy: float | None = None

    def ask(self, line: str) -> dict[str, Any]:
        """Send one command, wait for its answer."""
        if not (self.worker and self.worker.stdin and self.worker.stdout):
            raise RuntimeError(f"{self.engine} was not started")
        self.worker.stdin.write(line + "\n")
        self.worker.stdin.flush()
        answer: dict[str, Any] = json.loads(self.worker.stdout.readline())
        return answer


def table(group: list[Contender]) -> str:
    """Markdown table of one network, ratios to LiteRT float32."""
    base = next(c for c in group if (c.engine, c.precision) == ("litert", "float32"))
    ncnn = next((c for c in group if c.engine == "ncnn"), None)
    lines = [
        f"\n### {base.network}\n",
        "| engine | precision | min us | CPU us, median | of LiteRT f32 | of ncnn | RSS MB | kB | error | accuracy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for c in sorted(group, key=lambda c: min(c.times_us)):
        error = float(np.abs(c.features - base.features).max() / np.abs(base.features).max())
        lines.append(
            f"| {c.version} | {c.precision} | {min(c.times_us):.0f} | {np.median(c.cpu_us):.0f} "
            f"| {_ratios(c, base)} | {_ratios(c, ncnn)} | {c.rss_mb:.0f} | {c.size_bytes / 1e3:.0f} "
            f"| {error:.1e} | {'' if c.accuracy is None else f'{100 * c.accuracy:.2f} %'} |"
        )
    return "\n".join(lines)


def figures_of(contender: Contender) -> dict[str, Any]:
    """What was measured, for programs."""
    return {
        "network": contender.network, "engine": contender.version, "precision": contender.precision,
        "min_us": min(contender.times_us), "median_us": float(np.median(contender.times_us)),
        "cpu_us_median": float(np.median(contender.cpu_us)), "runs": len(contender.times_us),
        "peak_rss_mb": contender.rss_mb, "size_bytes": contender.size_bytes, "accuracy": contender.accuracy,
    }  # fmt: skip


def _ratios(contender: Contender, base: Contender | None) -> str:
    if base is None:
        return ""
    by_median = np.median(contender.cpu_us) / np.median(base.cpu_us)
    return f"{min(contender.times_us) / min(base.times_us):.2f}, {by_median:.2f}"


def teacher_table(teacher: list[Contender], student: list[Contender]) -> str:
    """Teacher against one student on the same engine, beside the paper's ratios."""
    lines = [
        f"\n### {teacher[0].network} against {student[0].network}, same engine\n",
        "| engine | precision | teacher CPU us, median | student | latency | peak RSS | file |",
        "|---|---|---|---|---|---|---|",
    ]
    pairs = [(t, s) for t in teacher for s in student if (t.engine, t.precision) == (s.engine, s.precision)]
    for t, s in pairs:
        teacher_us, student_us = np.median(t.cpu_us), np.median(s.cpu_us)
        times = f"{teacher_us:.0f} | {student_us:.0f} | {teacher_us / student_us:.1f}x"
        memory = f"{t.rss_mb / s.rss_mb:.2f}x | {t.size_bytes / s.size_bytes:.1f}x"
        lines.append(f"| {t.version} | {t.precision} | {times} | {memory} |")
    return "\n".join([*lines, "", PAPER_RATIOS])
