"""Every test image through a broker: one agent a student, a coordinator, mosquitto on loopback.

    python benchmarks/over_mqtt.py DEPLOYMENT --dataset cifar10.zip [--expect RUN/evaluation/answers.npz] [--window 16]

Prints accuracy, lost, repeated and differing answers and the latency of each part. With --expect it ends with
1 if any answer differs from the run's own offline answer, or any frame is lost.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fleet_processes import FleetProcesses

from edge_agent.console.deployment_directory import open_deployment

PARTS = ("student", "queue", "transport", "merge", "total")


def main() -> int:
    """Run the fleet, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deployment", type=Path, metavar="DEPLOYMENT")
    parser.add_argument("--dataset", required=True, metavar="PATH")
    parser.add_argument("--expect", metavar="FILE")
    parser.add_argument("--window", type=int, default=16, help="frames in flight")
    arguments = parser.parse_args()
    students = len(open_deployment(arguments.deployment).manifest.students)
    deployment = arguments.deployment.resolve()
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.json"
        with FleetProcesses(Path(folder) / "fleet", deployment, persistence=False) as fleet:
            fleet.start_broker()
            fleet.start_coordinator("--deadline-ms", "5000")
            for number in range(students):
                fleet.start_agent(f"pi-{number}", str(number))
            command = [
                sys.executable, "-m", "coordinator.cli", "evaluate", "--broker-port", str(fleet.port), "--json",
                "--dataset", arguments.dataset, "--window", str(arguments.window), "--wait", "60",
            ]  # fmt: skip
            command += ["--expect", arguments.expect] if arguments.expect else []
            with answers.open("wb") as file:
                ended = subprocess.run(command, stdout=file, check=False).returncode
        found = json.loads(answers.read_text())
    print(f"{students} agents, {arguments.window} frame{'s' if arguments.window > 1 else ''} in flight\n")
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


if __name__ == "__main__":
    sys.exit(main())
