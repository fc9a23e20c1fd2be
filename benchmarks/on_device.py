"""What a device does with a deployment: engines, temperature under load, the agent's start. Prints Markdown.

    python benchmarks/on_device.py DEPLOYMENT [--sustain-s 60] [--starts 3] [--networks FOLDER]

Needs no more than nonn-edge[agent]. `make results-on-pi` runs it and keeps the answer with the circumstances. With a
folder of network_files.py (made on a PC) it also puts the paper's teachers and students on this device side by side.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_agent.bench import BenchRow, bench_student
from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.energy import board_name
from edge_agent.runtimes import open_runtime
from edge_agent.telemetry import DeviceSensors

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
RELEASE = Path("/etc/os-release")
COLUMNS = (
    "student", "engine", "precision", "median ms", "p95 ms", "n", "peak RSS MB", "artifact kB", "arena kB", "mJ",
    "energy is", "throttled", "",
)  # fmt: skip
PARTS = 6  # of the sustained load, a row each


def main() -> int:
    """Measure and print all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deployment", type=Path, metavar="DEPLOYMENT")
    parser.add_argument("--sustain-s", type=float, default=60, help="of steady load")
    parser.add_argument("--starts", type=int, default=3, help="of the agent")
    parser.add_argument("--networks", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    deployment = open_deployment(arguments.deployment)
    print(f"{board_name() or 'no device tree, so no Pi'}; {system()}; governor {governor()}; deployment "
          f"{arguments.deployment.name}\n")  # fmt: skip
    rows = [row for student in deployment.manifest.students for row in bench_student(deployment, student, 1)]
    print_bench(rows)
    print_sustained(deployment, rows, arguments.sustain_s)
    passed_on = [[script("agent_footprint.py"), "--deployment", str(arguments.deployment), "--repeat",
                  str(arguments.starts)]]  # fmt: skip
    if arguments.networks:
        more = ["--turn-ms", "1000", "--rounds", "5"]
        passed_on.append([script("paper_tables.py"), "--networks", str(arguments.networks), *more])
    for command in passed_on:
        print(flush=True)
        subprocess.run([sys.executable, *command], check=False)  # 1: over a budget, which its table says
    return int(not any(row.chosen for row in rows))


def print_bench(rows: list[BenchRow]) -> None:
    """One row for each artifact: one thread, a process of its own."""
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows:
        trial = row.trial
        if trial is None:
            print(f"| {row.student} | {row.engine} | {row.precision} | | | | | | | | | | refused: {row.refused} |")
            continue
        arena = "" if trial.arena_bytes is None else f"{trial.arena_bytes / 1e3:.0f}"
        energy = "" if row.millijoules is None else f"{row.millijoules:.3f}"
        throttled = {None: "not known", True: "YES", False: "no"}[row.throttled]
        print(f"| {row.student} | {trial.engine_version} | {row.precision} | {trial.median_us / 1e3:.3f} "
              f"| {trial.p95_us / 1e3:.3f} | {trial.runs} | {trial.peak_rss_bytes / 1e6:.1f} "
              f"| {row.size_bytes / 1e3:.0f} | {arena} | {energy} | {row.energy_source or row.energy} | {throttled} "
              f"| {'chosen' if row.chosen else ''} |")  # fmt: skip


def print_sustained(deployment: DeploymentDirectory, rows: list[BenchRow], seconds: float) -> None:
    """The chosen artifact of the first student while all cores are busy, part by part: heat shows."""
    chosen = next((row for row in rows if row.chosen), None)
    if chosen is None or seconds <= 0:
        return
    runtime = open_runtime(deployment.path / chosen.file, chosen.engine, 1)
    image = np.random.default_rng(1).integers(0, 256, runtime.input_shape).astype(np.uint8)
    beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range((os.cpu_count() or 1) - 1)]
    sensors = DeviceSensors()
    print(f"\nSteady load of {chosen.file} for {seconds:g} s, all {os.cpu_count()} cores busy:\n")
    print("| until s | n | median ms | p95 ms | temperature C | throttled |\n|---|---|---|---|---|---|")
    try:
        began = time.monotonic()
        for part in range(1, PARTS + 1):
            until = began + seconds * part / PARTS
            times_ms = run_until(lambda: runtime.run(image), until)
            p50, p95 = np.percentile(times_ms, (50, 95))
            temperature, throttled = sensors.temperature_c(), sensors.throttled()
            print(f"| {until - began:.1f} | {len(times_ms)} | {p50:.3f} | {p95:.3f} "
                  f"| {'not known' if temperature is None else f'{temperature:.1f}'} "
                  f"| { {None: 'not known', True: 'YES', False: 'no'}[throttled]} |", flush=True)  # fmt: skip
    finally:
        for program in beside:
            program.kill()
            program.wait()


def run_until(job: Callable[[], object], end: float) -> list[float]:
    """Milliseconds of each run of the job."""
    times_ms = []
    while not times_ms or time.monotonic() < end:
        started = time.perf_counter()
        job()
        times_ms.append(1000 * (time.perf_counter() - started))
    return times_ms


def script(name: str) -> str:
    """Another benchmark's path."""
    return str(Path(__file__).with_name(name))


def system() -> str:
    """The distribution's own name."""
    try:
        lines = RELEASE.read_text().splitlines()
    except OSError:
        return "unknown system"
    return next(
        (line.split("=", 1)[1].strip('"') for line in lines if line.startswith("PRETTY_NAME=")), "unknown system"
    )


def governor() -> str:
    """How the kernel chooses the clock."""
    try:
        return GOVERNOR.read_text().strip()
    except OSError:
        return "not known"


if __name__ == "__main__":
    sys.exit(main())
