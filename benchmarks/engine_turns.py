"""Engines in processes of their own that take turns, so that load on the machine hits all alike."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from engine_tables import Contender

from edge_agent.console.cpu_targets import this_cpu

REPOSITORY = Path(__file__).resolve().parent.parent
# Two Pythons, because tflite-runtime was built for NumPy 1.
PACKAGES = {
    "engines": ["ai-edge-litert==2.1.6", "apache-tvm-ffi==0.1.14.post0", "onnxruntime==1.32.0", "ncnn==1.0.20261020"],
    "tflite-runtime": ["tflite-runtime==2.14.0", "numpy<2"],
}


def python_for(name: str, cache: Path) -> Path:
    """Make the virtual environment once; return its Python."""
    folder = cache / name
    if not (folder / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin/pip"), "install", "--quiet", *PACKAGES[name]], check=True)
    return folder / "bin/python"


def start(contender: Contender, cache: Path | None, images_file: Path) -> None:
    """Start the contender's process; its first answer carries the features of image 0.

    Without a `cache` of virtual environments it runs in this Python, with what is installed here.
    """
    name = "tflite-runtime" if contender.engine == "tflite-runtime" else "engines"
    python = Path(sys.executable) if cache is None else python_for(name, cache)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1"}
    if cache is not None:  # the worker's Python has no apache-tvm: only the light runtime, as on a device
        environment["NONN_TVM_RUNTIME"] = str(cache / "tvm")
    script = Path(__file__).with_name("engine_worker.py")
    command = [str(python), str(script), contender.engine, str(contender.file), str(images_file)]
    contender.worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert contender.worker.stdout
    line = contender.worker.stdout.readline()
    if not line:
        raise SystemExit(f"{' '.join(command)}: died; run it by hand to see why")
    head = json.loads(line)
    contender.version, contender.start_ms = head["version"], head["start_ms"]
    contender.base_rss_mb = head["base_rss_mb"]
    contender.features = np.asarray(head["features"], np.float32)


def measure(group: list[Contender], rounds: int, turn_ms: float) -> None:
    """Let the contenders take turns of about `turn_ms`, after one warm-up run."""
    runs = {id(c): max(1, int(turn_ms * 1e3 / c.ask("time 2")["cpu_us"][1])) for c in group}
    for _ in range(rounds):
        for contender in group:
            answer = contender.ask(f"time {runs[id(contender)]}")
            contender.times_us += answer["times_us"]
            contender.cpu_us += answer["cpu_us"]
            contender.rss_mb = answer["rss_mb"]
            contender.meter = answer["meter"]
            contender.joules += [answer["joules"]] if answer["joules"] is not None else []


def cpu_name() -> str:
    """The processor, as far as it tells."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), this_cpu().machine)
