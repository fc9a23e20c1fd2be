"""Every test image through a broker: one agent a student, a coordinator, mosquitto on loopback.

    python benchmarks/over_mqtt.py DEPLOYMENT --dataset cifar10.zip [--expect answers.npz] [--window 16]
    python benchmarks/over_mqtt.py --site operator.toml --dataset cifar10.zip [--window 1]

Prints accuracy, lost, repeated and differing answers and the latency of each part. With --expect (the answers of a run,
RUN/evaluation/answers.npz, or of subsets.py --answers) it ends with 1 if any answer differs from the offline one, or
any frame is lost. With --site it starts nothing: agents and coordinator run elsewhere, on Pis for example.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from fleet_processes import FleetProcesses

from edge_agent.console.deployment_directory import open_deployment

PARTS = ("student", "queue", "transport", "merge", "total")


def main() -> int:
    """Run the fleet, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deployment", nargs="?", type=Path, metavar="DEPLOYMENT")
    parser.add_argument("--site", metavar="FILE.toml", help="settings of a client of a site that runs")
    parser.add_argument("--dataset", required=True, metavar="PATH")
    parser.add_argument("--expect", metavar="FILE")
    parser.add_argument("--window", type=int, default=16, help="frames in flight")
    arguments = parser.parse_args()
    if (arguments.deployment is None) == (arguments.site is None):
        parser.error("expected DEPLOYMENT or --site")
    flags = ["--dataset", arguments.dataset, "--window", str(arguments.window)]
    flags += ["--expect", arguments.expect] if arguments.expect else []
    if arguments.site:
        found, ended = evaluate("--config", arguments.site, *flags)
        who = f"deployment {found['deployment_name']} on a site"
    else:
        found, ended = send_all(arguments.deployment, *flags)
        who = f"{len(open_deployment(arguments.deployment).manifest.students)} agents"
    print(f"{who}, {arguments.window} frame{'s' if arguments.window > 1 else ''} in flight\n")
    print("| frames | answered | lost | repeated | differ from offline | accuracy |\n|---|---|---|---|---|---|")
    differ = found["different_from_offline"] if arguments.expect else "not compared"
    print(f"| {found['frames']:,} | {found['answered']:,} | {found['lost']} | {found['repeated']} | {differ} "
          f"| {100 * found['accuracy']:.2f} % |")  # fmt: skip
    print("\n| latency, ms | p50 | p95 | p99 |\n|---|---|---|---|")
    latency = found["latency_ms"]["complete"]
    for part in PARTS:
        print(
            f"| {part} | " + " | ".join(f"{latency[part][quantile]:.2f}" for quantile in ("p50", "p95", "p99")) + " |"
        )
    return ended


def send_all(path: Path, *flags: str) -> tuple[dict[str, Any], int]:
    """Report and exit status of `nonn-coordinator evaluate` on a fleet of one agent for each student."""
    students, deployment = len(open_deployment(path).manifest.students), path.resolve()
    with tempfile.TemporaryDirectory() as folder, FleetProcesses(Path(folder), deployment, persistence=False) as fleet:
        fleet.start_broker()
        fleet.start_coordinator("--deadline-ms", "5000")
        for number in range(students):
            fleet.start_agent(f"pi-{number}", str(number))
        return evaluate("--broker-port", str(fleet.port), *flags)


def evaluate(*flags: str) -> tuple[dict[str, Any], int]:
    """Report and exit status of `nonn-coordinator evaluate`."""
    command = [sys.executable, "-m", "coordinator.cli", "evaluate", "--json", "--wait", "60", *flags]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if not ended.stdout.strip():
        raise SystemExit(ended.returncode)
    return json.loads(ended.stdout), ended.returncode


if __name__ == "__main__":
    sys.exit(main())
