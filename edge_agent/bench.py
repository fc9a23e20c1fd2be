"""`nonn-agent bench`: every engine and precision of a deployment on this device."""

import json as json_module
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.cpu_targets import this_cpu
from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.energy import board_name, core_watts
from edge_agent.engine_choice import Candidate, allowed, select, try_artifact
from edge_agent.protocol.manifest import Student
from edge_agent.telemetry import DeviceSensors
from edge_agent.trial import Trial

MEASURE_S = 2.0  # per row; a median over hundreds of runs on x86, over dozens on a Pi
COLUMNS = (
    "student", "engine", "precision", "target", "median ms", "p95 ms", "min ms", "peak RSS MB", "artifact kB",
    "arena kB", "import ms", "mJ/inference", "energy is", "throttled", "error", "",
)  # fmt: skip

UNTOLD = frozenset({"", "unknown", "not known"})


@dataclass(frozen=True)
class BenchRow:
    """One artifact's measurements, or why it has none."""

    student: int
    file: str
    engine: str
    precision: str
    target: str
    size_bytes: int
    trial: Trial | None
    error: float | None  # largest difference to the golden features
    refused: str
    millijoules: float | None  # for one inference
    energy: Literal["measured", "estimated", "unknown"]
    energy_source: str  # 'hwmon', 'powercap', 'estimated: ...' or why there is none
    throttled: bool | None  # by the firmware, right after this row
    chosen: bool


def run_bench(deployment: Path, students: Sequence[int] | None, num_threads: int, json: bool) -> int:
    """Print the table for these students (None: all); FAILED if a student has no working artifact."""
    directory = open_deployment(deployment)
    rows: list[BenchRow] = []
    for student in _students(directory, students):
        rows += bench_student(directory, student, num_threads)
    print(_json_text(directory, rows, num_threads) if json else _table_text(directory, rows, num_threads))
    working = {row.student for row in rows if row.chosen}
    return ExitCode.OK if working == {row.student for row in rows} else ExitCode.FAILED


def bench_student(directory: DeploymentDirectory, student: Student, num_threads: int) -> list[BenchRow]:
    """Measure every artifact of a student, each in a process of its own."""
    manifest = directory.manifest
    shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
    image = np.frombuffer(directory.read(manifest.golden_input), np.uint8).reshape(shape)
    candidates, throttled = [], []
    for candidate in allowed(student.artifacts, this_cpu()):
        candidates.append(
            candidate if candidate.refused else _measure(directory, candidate, student, image, num_threads)
        )
        throttled.append(DeviceSensors().throttled())
    chosen = select(candidates, student.golden.tolerance)
    return [_row(student, c, t, c is chosen) for c, t in zip(candidates, throttled, strict=True)]


def _measure(
    directory: DeploymentDirectory, candidate: Candidate, student: Student, image: NDArray[np.uint8], num_threads: int
) -> Candidate:
    """One row's figures. A file that is damaged, or was never fetched, is a row that says so."""
    try:
        directory.check(candidate.artifact)  # before an engine sees it
    except UserError as error:
        return Candidate(candidate.artifact, refused=str(error))
    return try_artifact(directory.path, candidate.artifact, student, image, num_threads, MEASURE_S)


def estimate_millijoules(cpu_us: float, board: str) -> tuple[float | None, str]:
    """Energy of `cpu_us` of CPU time on `board`, and where the figure comes from.

    >>> estimate_millijoules(10_000, "Raspberry Pi 3 Model B Plus Rev 1.3")
    (8.0, 'estimated: 0.8 W per busy core of a Raspberry Pi 3 Model B Plus Rev 1.3')
    """
    watts = core_watts(board)
    if watts is None:
        return None, "no power sensor, no profile of this board"
    return round(cpu_us * watts / 1e3, 6), f"estimated: {watts:g} W per busy core of a {board}"


def _students(directory: DeploymentDirectory, wanted: Sequence[int] | None) -> list[Student]:
    there = directory.manifest.students
    if wanted is None:
        return list(there)
    for index in wanted:
        if not 0 <= index < len(there):
            raise UserError(f"student {index}: {directory.path} has students 0 to {len(there) - 1}", ExitCode.USAGE)
    return [there[index] for index in wanted]


def _row(student: Student, candidate: Candidate, throttled: bool | None, chosen: bool) -> BenchRow:
    artifact, trial = candidate.artifact, candidate.trial
    return BenchRow(
        student.index, artifact.file, artifact.engine, artifact.precision, artifact.target, artifact.size_bytes,
        trial, candidate.error if trial else None, candidate.refused,
        *energy_of(trial, board_name()), throttled, chosen,
    )  # fmt: skip


def energy_of(trial: Trial | None, board: str) -> tuple[float | None, Literal["measured", "estimated", "unknown"], str]:
    """Millijoules of one inference, how they are known, and whence: a meter's word before an estimate."""
    if trial is None:
        return None, "unknown", ""
    if trial.joules is not None:
        return trial.joules * 1e3, "measured", trial.meter
    millijoules, source = estimate_millijoules(trial.cpu_us, board)
    return millijoules, "unknown" if millijoules is None else "estimated", source


def _json_text(directory: DeploymentDirectory, rows: Sequence[BenchRow], num_threads: int) -> str:
    row_documents = [asdict(row) for row in rows]
    for row in row_documents:
        if row["trial"]:
            del row["trial"]["features"]  # the golden error says all that a reader wants of them
    document = {
        "deployment": directory.id,
        "machine": platform.machine(),
        "board": board_name(),
        "num_threads": num_threads,
        "rows": row_documents,
    }
    return json_module.dumps(document, indent=2)


def _table_text(directory: DeploymentDirectory, rows: Sequence[BenchRow], num_threads: int) -> str:
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    # What this board can not tell gets no column: the table is wide enough.
    known = [n for n in range(len(COLUMNS)) if any(line[n] not in UNTOLD for line in cells[1:])]
    cells = [tuple(line[n] for n in known) for line in cells]
    widths = [max(len(line[column]) for line in cells) for column in range(len(known))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    sources = sorted({row.energy_source for row in rows if row.energy_source})
    head = f"deployment {directory.id} on {board_name() or platform.machine()}, {num_threads} thread(s)"
    return "\n".join([head, *lines, f"energy: {'; '.join(sources) or 'not known'}"])


def _cells(row: BenchRow) -> tuple[str, ...]:
    head = (str(row.student), row.engine, row.precision, row.target)
    if row.trial is None:
        return (*head, *[""] * (len(COLUMNS) - 5), f"refused: {row.refused}")
    trial = row.trial
    return (
        *head, f"{trial.median_us / 1e3:.3f}", f"{trial.p95_us / 1e3:.3f}", f"{trial.fastest_us / 1e3:.3f}",
        f"{trial.peak_rss_bytes / 1e6:.1f}", f"{row.size_bytes / 1e3:.0f}",
        "" if trial.arena_bytes is None else f"{trial.arena_bytes / 1e3:.0f}", f"{trial.import_ms:.0f}",
        "" if row.millijoules is None else f"{row.millijoules:.3f}", row.energy,
        {None: "not known", True: "YES", False: "no"}[row.throttled], f"{row.error:.3g}",
        "chosen" if row.chosen else "",
    )  # fmt: skip
