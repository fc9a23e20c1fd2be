"""Which of a student's artifacts this device runs: the fastest of those that answer right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.cpu_targets import CPUFeatures, this_cpu, why_unfit
from edge_agent.console.exit_codes import UserError
from edge_agent.inference import golden_error
from edge_agent.protocol.manifest import Artifact, Student
from edge_agent.trial import TRIAL_S, Trial, TrialFailedError, run_trial

# Two artifacts within 3 % are equally fast on a device that does other things too: the truer one wins.
EQUALLY_FAST = 1.03


@dataclass(frozen=True)
class Candidate:
    """One artifact and how it did: `trial` and `error` if it answered, `refused` if not."""

    artifact: Artifact
    trial: Trial | None = None
    error: float = float("inf")  # largest difference to the golden features
    refused: str = ""


@dataclass(frozen=True)
class EngineChoice:
    """The chosen artifact and everything that was tried."""

    chosen: Candidate
    candidates: tuple[Candidate, ...]

    @property
    def times_ms(self) -> dict[str, float]:
        """Median milliseconds by file, as reported in the device's info."""
        return {c.artifact.file: round(c.trial.median_us / 1e3, 3) for c in self.candidates if c.trial}


def select(candidates: Sequence[Candidate], tolerance: float) -> Candidate | None:
    """Choose the fastest candidate whose features agree within `tolerance`; None if there is none. Pure."""
    agreeing = [(c, c.trial.median_us) for c in candidates if c.trial and c.error <= tolerance]
    if not agreeing:
        return None
    fastest_us = min(median_us for _, median_us in agreeing)
    return min((c for c, median_us in agreeing if median_us <= fastest_us * EQUALLY_FAST), key=lambda c: c.error)


def allowed(
    artifacts: Sequence[Artifact], cpu: CPUFeatures, engine: str = "auto", precision: str = "auto"
) -> list[Candidate]:
    """Candidates for this CPU and these settings; those for other CPUs stay in the list, refused. Pure."""
    asked = [a for a in artifacts if engine in ("auto", a.engine) and precision in ("auto", a.precision)]
    return [Candidate(artifact, refused=why_unfit(artifact.target, cpu) or "") for artifact in asked]


def choose_engine(
    folder: Path,
    student: Student,
    golden_input: NDArray[np.uint8],
    *,
    num_threads: int = 1,
    engine: str = "auto",
    precision: str = "auto",
) -> EngineChoice:
    """Time every allowed artifact in `folder` on the golden input (height, width, channels) uint8.

    Each runs in a process of its own, so one that crashes is refused and the agent goes on. UserError if none agrees.
    """
    candidates = tuple(
        candidate if candidate.refused else try_artifact(folder, candidate.artifact, student, golden_input, num_threads)
        for candidate in allowed(student.artifacts, this_cpu(), engine, precision)
    )
    chosen = select(candidates, student.golden.tolerance)
    if chosen is None:
        reasons = "; ".join(_reason(candidate, student.golden.tolerance) for candidate in candidates)
        raise UserError(f"student {student.index}: no artifact works on this device: {reasons or 'none was allowed'}")
    return EngineChoice(chosen, candidates)


def try_artifact(
    folder: Path,
    artifact: Artifact,
    student: Student,
    image: NDArray[np.uint8],
    num_threads: int,
    seconds: float = TRIAL_S,
) -> Candidate:
    """Run one artifact on the golden input in a process of its own; what goes wrong is in the candidate."""
    try:
        trial = run_trial(folder / artifact.file, artifact.engine, num_threads, image, seconds)
    except TrialFailedError as error:
        return Candidate(artifact, refused=str(error))
    if len(trial.features) != student.width:
        return Candidate(artifact, refused=f"gives {len(trial.features)} features, expected {student.width}")
    return Candidate(artifact, trial, golden_error(np.asarray(trial.features, np.float32), student.golden.features))


def _reason(candidate: Candidate, tolerance: float) -> str:
    if candidate.refused:
        return f"{candidate.artifact.file}: {candidate.refused}"
    return f"{candidate.artifact.file}: off by {candidate.error:.4g}, allowed {tolerance:.4g}"
