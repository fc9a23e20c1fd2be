"""The agent's runtimes as an emulated Cortex-A53, with the official arm64 wheels, against this machine."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.runtimes import open_runtime

FOLDER = os.environ.get("NONN_AARCH64")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # emulated, and as slow as the host is busy
    pytest.mark.skipif(not FOLDER, reason="needs an arm64 Python: make test-aarch64"),
]
HERE = Path(__file__).parent


def _deployments(tiny: Path) -> list[Path]:
    """The fixture, and with NONN_DEPLOYMENT a trained deployment beside it."""
    extra = os.environ.get("NONN_DEPLOYMENT")
    return [tiny, *([Path(extra)] if extra else [])]


def _run_emulated(repository, cpu, arguments, output):
    folder = Path(FOLDER)
    environment = {
        "PYTHONPATH": f"{repository}:{folder / 'packages'}",
        "PYTHONHOME": str(folder / "sysroot/usr"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NONN_TVM_RUNTIME": str(folder / "tvm"),
        "PATH": os.environ["PATH"],
    }
    command = [
        "qemu-aarch64-static",
        "-cpu",
        cpu,
        "-L",
        str(folder / "sysroot"),
        str(folder / "sysroot/usr/bin/python3.11"),
    ]
    script = [str(HERE / "features_on_device.py"), *map(str, arguments), str(output)]
    finished = subprocess.run([*command, *script], env=environment, capture_output=True, text=True, timeout=800)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(output.read_text())


def _golden_image(deployment, path):
    manifest = deployment.manifest
    shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
    return np.fromfile(path / manifest.golden_input.file, np.uint8).reshape(shape)


def test_tflite_features_agree_with_the_hosts(tiny, repository, tmp_path):
    for path in _deployments(tiny):
        deployment = open_deployment(path)
        image = _golden_image(deployment, path)
        artifacts = [a for s in deployment.manifest.students for a in s.artifacts if a.engine == "tflite"]
        names = [f"{path / artifact.file}=tflite" for artifact in artifacts]
        answers = _run_emulated(
            repository, "cortex-a53", [*names, path / deployment.manifest.golden_input.file], tmp_path / "answers.json"
        )
        for artifact in artifacts:
            answer = answers[artifact.file]
            assert "error" not in answer, answer
            assert answer["engine_version"] == "ai-edge-litert 2.1.6"
            here = open_runtime(path / artifact.file, "tflite").run(image)
            assert answer["dtype"] == str(here.dtype)
            # Kernels round differently: int8 differs by at most one step, float32 by rounding,
            # dynamic ranges by what a step of their activations is worth.
            allowed = {"int8": 1, "dynamic": 0.02 * float(np.abs(here).max())}.get(artifact.precision, 1e-4)
            assert np.abs(np.asarray(answer["features"], np.float64) - here).max() <= allowed, artifact.file


@pytest.mark.skipif(not importlib.util.find_spec("tvm"), reason="apache-tvm is not installed (extra: tvm)")
@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-g++"), reason="no cross compiler")
def test_tvm_students_agree_and_other_cpus_code_is_refused(tiny, repository, tmp_path):
    for path in _deployments(tiny):
        deployment = open_deployment(path)
        image = _golden_image(deployment, path)
        artifacts = deployment.manifest.students[0].artifacts
        float_file = next((a.file for a in artifacts if (a.engine, a.precision) == ("tflite", "float32")), None)
        if float_file is None:
            continue  # the example has int8 alone; TVM compiles float32
        modules = {}
        for target in ("aarch64-cortex-a53", "aarch64-cortex-a72", "aarch64-cortex-a76", "x86_64-v3"):
            modules[target] = tmp_path / f"{path.name}.{target}.so"
            code = f"""from pathlib import Path; from trainer.tvm_export.compiler import compile_student
compile_student(Path({str(path / float_file)!r}), Path({str(modules[target])!r}), {target!r})"""
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        names = [f"{module}=tvm" for module in modules.values()]
        image_file = path / deployment.manifest.golden_input.file
        answers = _run_emulated(repository, "cortex-a53", [*names, image_file], tmp_path / "tvm.json")
        here = open_runtime(path / float_file, "tflite").run(image)
        for target in ("aarch64-cortex-a53", "aarch64-cortex-a72"):
            features = np.asarray(answers[modules[target].name]["features"])
            np.testing.assert_allclose(features, here, rtol=1e-4, atol=1e-4 * float(np.abs(here).max()))
        assert "needs asimddp" in answers[modules["aarch64-cortex-a76"].name]["error"]
        assert "compiled for x86_64, this CPU is aarch64" in answers[modules["x86_64-v3"].name]["error"]


def test_the_emulated_packages_are_those_of_pyproject(repository):
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    prepare = (HERE / "prepare.sh").read_text()
    for pinned in (*extras["agent"], *extras["tvm"]):
        if "==" in pinned and not pinned.startswith("tflite=="):
            assert pinned in prepare, pinned
