"""From starting the agent's code to the first inference: time, memory, what was imported.

python benchmarks/agent_footprint.py --deployment RUN/export [--student 0] [--repeat 5]

Each row is a fresh Python that imports what `nonn-agent run` imports (settings, link, protocol), opens the deployment,
checks the artifact's hash, opens the engine and answers the golden input. Budgets: 1.5 s; 70 MB with LiteRT, 80 MB with
TVM's light runtime. The broker is not part of it: connecting takes as long as the network does.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from edge_agent.console.cpu_targets import this_cpu, why_unfit
from edge_agent.console.deployment_directory import open_deployment

BUDGET_S = 1.5
BUDGETS_MB = {"tflite": 70, "tvm": 80}
FORBIDDEN = ("tensorflow", "keras", "networkx", "tvm", "torch")

CHILD = """
import json, sys, time
from pathlib import Path
import edge_agent.app, edge_agent.cli, edge_agent.settings, edge_agent.telemetry
import edge_agent.protocol.mqtt_link
import numpy as np
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.runtimes import open_runtime
started, folder, file, engine, image_file = float(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:6]
deployment = open_deployment(folder)
artifact = next(a for s in deployment.manifest.students for a in s.artifacts if a.file == file)
deployment.read(artifact)
runtime = open_runtime(folder / file, engine)
runtime.run(np.fromfile(folder / image_file, np.uint8).reshape(runtime.input_shape))
seconds = time.clock_gettime(time.CLOCK_MONOTONIC) - started
status = Path('/proc/self/status').read_text().splitlines()
rss_mb = next(int(line.split()[1]) / 1024 for line in status if line.startswith('VmHWM:'))
cpu_s = time.process_time()
heavy = [name for name in %r if name in sys.modules]
print(json.dumps({'seconds': seconds, 'cpu_s': cpu_s, 'rss_mb': rss_mb, 'heavy': heavy}))
"""


def main() -> int:
    """Print one row per artifact; 1 if one is over its budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployment", type=Path, required=True)
    parser.add_argument("--student", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    manifest = open_deployment(arguments.deployment).manifest
    artifacts = [a for a in manifest.students[arguments.student].artifacts if why_unfit(a.target, this_cpu()) is None]
    print("| engine | precision | start to first answer, s: min, median | CPU s, min | peak RSS MB | within budget |")
    print("|---|---|---|---|---|---|")
    over = False
    for artifact in artifacts:
        command = [str(arguments.deployment), artifact.file, artifact.engine, manifest.golden_input.file]
        answers = [_start(command) for _ in range(arguments.repeat)]
        seconds, rss_mb = [a["seconds"] for a in answers], max(a["rss_mb"] for a in answers)
        heavy = answers[0]["heavy"]
        fits = min(seconds) < BUDGET_S and rss_mb < BUDGETS_MB[artifact.engine] and not heavy
        over |= not fits
        print(
            f"| {artifact.engine} | {artifact.precision} | {min(seconds):.2f}, {statistics.median(seconds):.2f} | "
            f"{min(a['cpu_s'] for a in answers):.2f} | {rss_mb:.0f} | {'yes' if fits else f'NO {heavy}'} |"
        )
    return int(over)


def _start(command: list[str]) -> dict[str, float | list[str]]:
    import time

    environment = {**os.environ, "TVM_NUM_THREADS": "1"}
    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    finished = subprocess.run(
        [sys.executable, "-c", CHILD % (FORBIDDEN,), str(started), *command],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    answer: dict[str, float | list[str]] = json.loads(finished.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    sys.exit(main())
