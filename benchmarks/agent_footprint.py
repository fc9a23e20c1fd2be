"""From starting the agent's code to the first inference: time, memory, what was imported.

python benchmarks/agent_footprint.py --deployment RUN/export [--student 0] [--repeat 5] [--tls FOLDER] [--json FILE]

Each start is a fresh Python that does what `nonn-agent run` does up to its loop: settings, deployment, hash, engine,
self-test on the golden input (the first answer), the link. After that come a second answer and one round of the loop,
which finds no broker; the peak is of all of it. The engine is named, so that nothing is timed; one start beforehand,
which does not count, chooses among TVM modules. Budgets: 1.5 s; 70 MB with LiteRT, 80 MB with TVM's light runtime;
MB are 10^6 bytes. The broker's answer is not part of it: it takes as long as the network does.

With --tls, the link is set up for TLS from ca.pem, certificate.pem and key.pem in that folder.
"""

import argparse
import compileall
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import edge_agent
from edge_agent.console.cpu_targets import this_cpu, why_unfit
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.runtimes import EngineError
from edge_agent.runtimes.tvm_library import find_library

BUDGET_S = 1.5
BUDGETS_MB = {"tflite": 70, "tvm": 80}
FORBIDDEN = ("tensorflow", "keras", "networkx", "tvm", "torch", "paho", "PIL")
COLUMNS = ("engine", "precision", "start to first answer, s: min, median", "CPU s, min", "peak RSS MB", "within budget")

CHILD = """
import json, sys, time
started, forbidden, arguments = float(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
import edge_agent.cli
from edge_agent.console.settings import load_settings
from edge_agent.settings import AgentSettings
given = edge_agent.cli._parser().parse_args(arguments)
settings = load_settings(AgentSettings, given, {})
edge_agent.cli.start_logging(settings.log_format, settings.log_level)
from edge_agent.metrics import metrics_served
from edge_agent.roles import build_agent
edge_agent.cli.wait_for_clock(settings.broker, lambda: True)
agent = build_agent(settings)
seconds, cpu_s = time.clock_gettime(time.CLOCK_MONOTONIC) - started, time.process_time()
assert all(slot.works() for slot in agent.lanes.current.slots)
agent.step(0.01)
status = open("/proc/self/status").read().splitlines()
peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
print(json.dumps({
    "seconds": seconds, "cpu_s": cpu_s, "peak_rss_bytes": peak_kib * 1024,
    "heavy": [name for name in forbidden if name in sys.modules],
    "engine_version": agent.lanes.current.slots[0].runtime.engine_version,
}))
"""


@dataclass(frozen=True)
class Footprint:
    """The starts with one engine and precision."""

    engine: str
    precision: str
    engine_version: str
    seconds: list[float]
    cpu_s: list[float]
    peak_rss_bytes: int
    heavy: list[str]

    @property
    def fits(self) -> bool:
        """Within the budgets, and nothing heavy was imported."""
        in_time, in_memory = min(self.seconds) < BUDGET_S, self.peak_rss_bytes < BUDGETS_MB[self.engine] * 1e6
        return in_time and in_memory and not self.heavy

    def line(self) -> str:
        """One row of the table."""
        verdict = "yes" if self.fits else f"NO {' '.join(self.heavy)}".rstrip()
        times = f"{min(self.seconds):.2f}, {statistics.median(self.seconds):.2f} | {min(self.cpu_s):.2f}"
        return f"| {self.engine_version} | {self.precision} | {times} | {self.peak_rss_bytes / 1e6:.1f} | {verdict} |"


def main() -> int:
    """Print one row per engine and precision; 1 if one is over its budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployment", type=Path, required=True)
    parser.add_argument("--student", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tls", type=Path, metavar="FOLDER", help="ca.pem, certificate.pem, key.pem")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args()
    # Wheel, Debian package and image bring bytecode; to compile it takes 0.8 MB that no device spends.
    compileall.compile_dir(Path(edge_agent.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(arguments.deployment, Path(temporary) / "deployment"))
        environment = {**os.environ, "TVM_NUM_THREADS": "1", **_light_runtime(Path(temporary))}
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        footprints = []
        for engine, precision in _kinds(folder, arguments.student):
            command = _command(folder, arguments, engine, precision)
            footprints.append(_measure(engine, precision, command, arguments.repeat, environment))
            print(footprints[-1].line(), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(_document(footprints, arguments), indent=1) + "\n")
    return int(not all(footprint.fits for footprint in footprints))


def _kinds(folder: Path, student: int) -> list[tuple[str, str]]:
    """Engines and precisions that run here, in the manifest's order, each once."""
    artifacts = open_deployment(folder).manifest.students[student].artifacts
    return list(dict.fromkeys((a.engine, a.precision) for a in artifacts if why_unfit(a.target, this_cpu()) is None))


def _command(folder: Path, arguments: argparse.Namespace, engine: str, precision: str) -> list[str]:
    command = ["run", "--deployment", str(folder), "--students", str(arguments.student), "--broker-port", "9"]
    if arguments.tls:
        for flag, name in (("ca", "ca"), ("certificate", "certificate"), ("key", "key")):
            command += [f"--broker-{flag}-file", str(arguments.tls / f"{name}.pem")]
    return [*command, "--engine", engine, "--precision", precision, "--log-level", "error"]


def _light_runtime(folder: Path) -> dict[str, str]:
    """Where TVM's runtime is, without the package around it, as on a device; nothing where there is none."""
    try:
        library = find_library()
    except EngineError:
        return {}
    shutil.copy(library.path, folder)
    (folder / "libtvm_runtime.version").write_text(library.version + "\n")
    return {"NONN_TVM_RUNTIME": str(folder)}


def _measure(engine: str, precision: str, command: list[str], repeat: int, environment: dict[str, str]) -> Footprint:
    _start(command, environment)
    answers = [_start(command, environment) for _ in range(repeat)]
    return Footprint(
        engine,
        precision,
        answers[0]["engine_version"],
        [answer["seconds"] for answer in answers],
        [answer["cpu_s"] for answer in answers],
        max(answer["peak_rss_bytes"] for answer in answers),
        answers[0]["heavy"],
    )


def _start(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    child = [sys.executable, "-c", CHILD, str(started), ",".join(FORBIDDEN), *command]
    finished = subprocess.run(child, capture_output=True, text=True, check=False, env=environment)
    if finished.returncode:
        raise SystemExit(f"the agent did not start: {finished.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return answer


def _document(footprints: list[Footprint], arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "when": time.strftime("%Y-%m-%d"),
        "machine": platform.machine(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": metadata.version("numpy"),
        "tls": arguments.tls is not None,
        "budgets": {"seconds": BUDGET_S, "peak_rss_mb": BUDGETS_MB},
        "starts": [
            {
                "engine": f.engine,
                "engine_version": f.engine_version,
                "precision": f.precision,
                "seconds_min": min(f.seconds),
                "seconds_median": statistics.median(f.seconds),
                "cpu_s_min": min(f.cpu_s),
                "peak_rss_mb": f.peak_rss_bytes / 1e6,
                "runs": len(f.seconds),
                "imported_heavy": f.heavy,
                "within_budget": f.fits,
            }
            for f in footprints
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
