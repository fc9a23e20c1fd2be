"""Soak: steady load on a fleet of three for MINUTES; RSS slope, file descriptors, latency drift.

    python benchmarks/soak.py --minutes 30 [--frames-per-s 20] [--json soak.json]
    python benchmarks/record.py --verdict soak python benchmarks/soak.py --minutes 30; make results    # writes it down

Ends with 1 if a frame is lost or answered twice, if memory of any program grows by more than 1 MB an hour after
the warm-up, or if file descriptors grow.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
from fleet_processes import TINY, FleetProcesses

from coordinator.frame_client import FrameClient
from coordinator.settings import ClientSettings

SAMPLE_S = 5.0
WARM_UP_PART = 0.5  # what remembers the last thousands of frames fills up; the slope is taken over the rest
MOST_MB_PER_HOUR = 1.0


def main() -> int:
    """Run, print, say whether it held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--frames-per-s", type=float, default=20.0, help="load [20]")
    parser.add_argument("--deployment", type=Path, default=TINY)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, FleetProcesses(Path(folder), arguments.deployment) as fleet:
        report = soak(fleet, arguments.minutes * 60, arguments.frames_per_s)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    show(report)
    return 1 if report["failures"] else 0


def soak(fleet: FleetProcesses, seconds: float, frames_per_s: float) -> dict:
    """Start the fleet, load it, watch it."""
    fleet.start_broker()
    for student in range(3):
        fleet.start_agent(f"pi-{student}", str(student))
    fleet.start_coordinator("--journal", str(fleet.folder / "journal"))
    settings = ClientSettings.model_validate({"broker": {"port": fleet.port}})
    client = FrameClient(settings, "soak")
    watched = {name: psutil.Process(program.pid) for name, program in fleet.running.items()}
    samples: list[dict] = []
    latencies: list[tuple[float, float]] = []
    results: dict[str, int] = {}
    try:
        info = client.wait_for_site(120)
        started = next_sample = time.monotonic()
        image = np.random.default_rng(0).integers(0, 256, (info.height, info.width, info.channels)).astype(np.uint8)
        count = int(seconds * frames_per_s)
        for answer in client.classify((image for _ in range(count)), 8, frames_per_s):
            now = time.monotonic()
            latencies.append((now - started, answer.prediction.latency_ms.total))
            results[answer.prediction.result] = results.get(answer.prediction.result, 0) + 1
            if now >= next_sample:
                next_sample = now + SAMPLE_S
                samples.append(
                    {"at_s": now - started, **{n: [p.memory_info().rss, p.num_fds()] for n, p in watched.items()}}
                )
    finally:
        client.close()
    cpu = {name: round(sum(p.cpu_times()[:2]), 1) for name, p in watched.items()}
    return summary(samples, latencies, results, count, client.repeated_answers, cpu) | {"frames_per_s": frames_per_s}


def summary(samples, latencies, results, count, repeated, cpu) -> dict:
    """Slopes, drift and what failed."""
    at = np.array([s["at_s"] for s in samples])
    late = at >= WARM_UP_PART * at[-1]
    programs = {}
    for name in [key for key in samples[0] if key != "at_s"]:
        rss = np.array([s[name][0] for s in samples], float)
        fds = [s[name][1] for s in samples]
        slope = np.polyfit(at[late], rss[late], 1)[0] * 3600 / 1e6
        programs[name] = {
            "rss_mb": round(rss[-1] / 1e6, 1), "rss_mb_per_hour": round(slope, 3),
            "fds_first": fds[len(fds) // 5], "fds_last": fds[-1], "fds_max": max(fds), "cpu_s": cpu[name],
        }  # fmt: skip
    times = np.array(latencies)
    tenth = max(1, len(times) // 10)
    failures = [f"{n}: memory grows" for n, p in programs.items() if p["rss_mb_per_hour"] > MOST_MB_PER_HOUR]
    failures += [f"{n}: file descriptors grow" for n, p in programs.items() if p["fds_last"] > p["fds_first"] + 1]
    lost = count - sum(results.values())
    failures += [f"{lost} frames lost"] * (lost > 0) + [f"{repeated} answers repeated"] * (repeated > 0)
    return {
        "minutes": round(at[-1] / 60, 1), "frames": count, "results": results, "lost": lost, "repeated": repeated,
        "programs": programs,
        "latency_ms": {
            part: {f"p{q}": round(float(np.percentile(values, q)), 2) for q in (50, 95, 99)}
            for part, values in (
                ("first tenth", times[:tenth, 1]),
                ("last tenth", times[-tenth:, 1]),
                ("all", times[:, 1]),
            )
        },
        "samples": samples[:: max(1, len(samples) // 60)],  # (RSS bytes, file descriptors) by program
        "failures": failures,
    }  # fmt: skip


def show(report: dict) -> None:
    """Print the report as Markdown."""
    results = report["results"]
    print(f"{report['minutes']} minutes, fleet of three, one coordinator with a journal, n = 1 run\n")
    print("| frames | a second | complete | degraded | abandoned | lost | answered twice |")
    print("|---|---|---|---|---|---|---|")
    counts = " | ".join(str(results.get(name, 0)) for name in ("complete", "degraded", "abandoned"))
    print(f"| {report['frames']} | {report['frames_per_s']:g} | {counts} | {report['lost']} | {report['repeated']} |\n")
    print("| program | RSS MB | MB/hour in the last half | file descriptors, first/last/most | CPU s |")
    print("|---|---|---|---|---|")
    for name, p in report["programs"].items():
        fds = f"{p['fds_first']}/{p['fds_last']}/{p['fds_max']}"
        print(f"| {name} | {p['rss_mb']} | {p['rss_mb_per_hour']} | {fds} | {p['cpu_s']} |")
    print("\n| latency, ms | p50 | p95 | p99 |\n|---|---|---|---|")
    for part, values in report["latency_ms"].items():
        print(f"| {part} | {values['p50']} | {values['p95']} | {values['p99']} |")
    worst = max(p["rss_mb_per_hour"] for p in report["programs"].values())
    print(f"\nMemory grows by at most {worst:.2f} MB/hour (limit {MOST_MB_PER_HOUR:g}).")
    for failure in report["failures"]:
        print(f"- **missed**: {failure}")


if __name__ == "__main__":
    sys.exit(main())
