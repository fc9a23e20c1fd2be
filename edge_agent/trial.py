"""One artifact on one image, timed in a process of its own: a crash or a leak stays there, memory is counted fresh.

`python -m edge_agent.trial ARTIFACT ENGINE THREADS IMAGE SECONDS` prints one JSON line.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.exit_codes import UserError
from edge_agent.inference import real_features
from edge_agent.runtimes import StudentRuntime, open_runtime

WARM_UP_RUNS = 3  # caches, lazy allocation, the governor's first step up
FEWEST_RUNS = 10  # even on a device that needs a second for each
MOST_RUNS = 500
TRIAL_S = 0.5
# A Pi 3 starts Python and an engine in 3 s; ten times that, and ten slow runs, mean that it hangs.
TIMEOUT_S = 60.0


class TrialFailedError(UserError):
    """An artifact that did not answer: refused, crashed or hung; one line saying which."""


@dataclass(frozen=True)
class Trial:
    """What one artifact did. Times in microseconds unless named otherwise, features real: (width,)."""

    engine_version: str
    features: tuple[float, ...]
    import_ms: float
    open_ms: float
    first_us: float
    fastest_us: float
    median_us: float
    p95_us: float
    cpu_us: float  # CPU time per run, all threads
    joules: float | None  # energy per run by the machine's own meter; None without one
    meter: str
    runs: int
    peak_rss_bytes: int
    arena_bytes: int | None


def run_trial(path: Path, engine: str, num_threads: int, image: NDArray[np.uint8], seconds: float = TRIAL_S) -> Trial:
    """Time the artifact in a fresh process; TrialFailedError says why it has no times."""
    with tempfile.NamedTemporaryFile(suffix=".image") as file:
        file.write(image.tobytes())
        file.flush()
        command = [sys.executable, "-m", __name__, str(path), engine, str(num_threads), file.name, str(seconds)]
        try:
            finished = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise TrialFailedError(f"{path.name}: no answer within {TIMEOUT_S:.0f} s") from None
    if finished.returncode < 0:
        raise TrialFailedError(f"{path.name}: the engine crashed with signal {-finished.returncode}")
    answer = json.loads(finished.stdout.splitlines()[-1]) if finished.stdout else {}
    if "features" not in answer:
        last_line = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
        raise TrialFailedError(str(answer.get("error", f"{path.name}: {last_line}")))
    return Trial(**{**answer, "features": tuple(answer["features"])})


def measure(path: Path, engine: str, num_threads: int, image_file: Path, seconds: float) -> Trial:
    """Time the artifact in this process, which should have done nothing else."""
    from edge_agent.energy import find_meter
    from edge_agent.runtimes.arena import arena_bytes

    started = time.perf_counter()
    _import_engine(engine)
    imported = time.perf_counter()
    runtime = open_runtime(path, engine, num_threads)
    opened = time.perf_counter()
    image = np.fromfile(image_file, np.uint8)
    if image.size != np.prod(runtime.input_shape):
        raise UserError(f"{path.name}: takes {runtime.input_shape}, the golden input has {image.size} bytes")
    image = image.reshape(runtime.input_shape)
    before_first = time.perf_counter()
    features = real_features(runtime.run(image), runtime.quantization)
    first = time.perf_counter()
    for _ in range(WARM_UP_RUNS):
        runtime.run(image)
    meter = find_meter()
    meter.start()
    cpu_started = time.process_time()
    times_us = _timed_runs(runtime, image, seconds)
    cpu_us = (time.process_time() - cpu_started) * 1e6 / len(times_us)
    joules = meter.stop()
    peak_rss_bytes = _peak_rss_bytes()  # before the arena is counted, which opens the artifact once more
    return Trial(
        engine_version=runtime.engine_version,
        features=tuple(features.tolist()),
        import_ms=(imported - started) * 1e3,
        open_ms=(opened - imported) * 1e3,
        first_us=(first - before_first) * 1e6,
        fastest_us=min(times_us),
        median_us=float(np.median(times_us)),
        p95_us=float(np.percentile(times_us, 95)),
        cpu_us=cpu_us,
        joules=None if joules is None else joules / len(times_us),
        meter=meter.name,
        runs=len(times_us),
        peak_rss_bytes=peak_rss_bytes,
        arena_bytes=arena_bytes(path, runtime),
    )


def _import_engine(engine: str) -> None:
    if engine == "tvm":
        from edge_agent.runtimes.tvm_library import load_library

        load_library()
    else:
        from edge_agent.runtimes.litert import find_interpreter

        find_interpreter()


def _timed_runs(runtime: StudentRuntime, image: NDArray[np.uint8], seconds: float) -> list[float]:
    """Microseconds of each run, for `seconds` within the limits of how many."""
    times_us: list[float] = []
    end = time.perf_counter() + seconds
    while len(times_us) < FEWEST_RUNS or (len(times_us) < MOST_RUNS and time.perf_counter() < end):
        started = time.perf_counter_ns()
        runtime.run(image)
        times_us.append((time.perf_counter_ns() - started) / 1e3)
    return times_us


def _peak_rss_bytes() -> int:
    """The kernel's high-water mark; getrusage would count the parent, which this process was before exec."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def main(arguments: list[str]) -> int:
    """Print the trial, or what was wrong, as JSON."""
    path, engine, num_threads, image_file, seconds = arguments
    try:
        trial = measure(Path(path), engine, int(num_threads), Path(image_file), float(seconds))
    except UserError as error:
        print(json.dumps({"error": str(error)}))
        return int(error.exit_code)
    print(json.dumps(asdict(trial)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
