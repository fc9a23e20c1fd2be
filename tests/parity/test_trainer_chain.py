"""The whole chain as a user runs it: real processes, a small folder of images, SIGKILL on the way."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_agent.console.cpu_targets import this_cpu, why_unfit
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.quantization import dequantize
from edge_agent.runtimes import open_runtime
from trainer.datasets import load_dataset
from trainer.export_checks import ExportAccuracy, check_accuracies
from trainer.feature_budget import through_codec
from trainer.golden import golden_image
from trainer.litert_batches import open_interpreter
from trainer.tvm_export.targets import TARGETS, best_host_target, has_linker

SIZE = 12
CLASSES = ("blue", "green", "red")
# Where nothing links (apt install g++ g++-aarch64-linux-gnu, or pip install ziglang), the chain runs without TVM.
# Modules for other machines are checked with one for this: without its linker there are none.
TARGET_NAMES = (best_host_target(), "aarch64-cortex-a53") if has_linker(TARGETS[best_host_target()]) else ()
COMPILED = tuple(name for name in TARGET_NAMES if has_linker(TARGETS[name]))
SETTINGS = (
    "--teacher", "cnn-8-12", "--student", "cnn-4-6,wrn-10-1", "--students", "2", "--teacher-passes", "6",
    "--passes", "4", "--views", "2", "--crop-pad", "1", "--batch", "16", "--name", "colours",
    "--tvm", ",".join(COMPILED) or "none",
)  # fmt: skip


def write_images(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 12)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (SIZE, SIZE, 3))
                pixels[..., 2 - label] += rng.integers(20, 120)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
    return root


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "trainer.cli", *map(str, arguments)]


def call(*arguments: str | Path, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=280, **more)


def one_error_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def run(images, tmp_path_factory) -> Path:
    """A finished run that was killed without warning once the students' training had begun."""
    folder = tmp_path_factory.mktemp("runs") / "colours"
    with subprocess.Popen(
        command("run", "--dataset", images, *SETTINGS, "--out", folder), stderr=subprocess.DEVNULL
    ) as first:
        end = time.monotonic() + 240
        while not (folder / "distill" / "inputs.json").exists():
            assert first.poll() is None, "ended before it could be killed"
            assert time.monotonic() < end, "the teacher took too long"
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL
    done = call("run", "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluate"] == json.loads((folder / "evaluation.json").read_text())
    return folder


def test_the_deployment_is_complete_and_true(run, images):
    deployment = open_deployment(run / "export")
    manifest = deployment.manifest
    assert {file.name for file in (run / "export").iterdir()} == {"manifest.json", *(f.file for f in manifest.files())}
    for entry in manifest.files():
        deployment.read(entry)
    assert manifest.classes == CLASSES
    assert [student.network for student in manifest.students] == ["cnn-4-6", "wrn-10-1"]
    assert manifest.filters == sum(manifest.widths) == 12
    golden = np.frombuffer(deployment.read(manifest.golden_input), np.uint8).reshape(SIZE, SIZE, 3)
    assert np.array_equal(golden, golden_image((SIZE, SIZE, 3), seed=0))
    for student in manifest.students:
        compiled = {artifact.target for artifact in student.artifacts if artifact.engine == "tvm"}
        assert compiled == set(COMPILED)
        for artifact in student.artifacts:
            if artifact.engine == "tvm":
                if why_unfit(artifact.target, this_cpu()) is None:
                    runtime = open_runtime(run / "export" / artifact.file, "tvm")
                    error = np.max(np.abs(runtime.run(golden) - np.array(student.golden.features)))
                    assert error <= 1e-4 * max(student.golden.features), artifact.file
                continue
            features = run_artifact(deployment.read(artifact), golden)
            error = np.max(np.abs(features - np.array(student.golden.features)))
            assert error <= student.golden.tolerance, artifact.file


def run_artifact(content: bytes, pixels: np.ndarray) -> np.ndarray:
    interpreter = open_interpreter(content)
    entry, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(entry["index"], pixels[None].astype(entry["dtype"]))
    interpreter.invoke()
    values = interpreter.get_tensor(answer["index"])[0]
    return dequantize(values, *answer["quantization"]) if values.dtype == np.int8 else values


def test_the_export_says_what_it_checked(run):
    results = json.loads((run / "exporting" / "stage.json").read_text())["results"]
    checked = {(one["engine"], one["precision"]): one["accuracy"] for one in results["accuracies"]}
    assert set(checked) == {("tflite", "float32"), ("tflite", "int8"), *[("tvm", "float32")] * bool(COMPILED)}
    assert checked.get(("tvm", "float32"), checked["tflite", "float32"]) == checked["tflite", "float32"]
    assert all(seconds < 30 for seconds in results["compile_s"].values())
    encodings = [(row["encoding"], row["deflate"]) for row in results["feature_budget"]]
    assert encodings == [("float32", False), ("int8", False), ("int8", True), ("int4", False), ("int4", True)]
    lost = next(r["points_lost"] for r in results["feature_budget"] if not r["deflate"] and r["encoding"] in
                results["feature_encoding"])  # fmt: skip
    assert lost <= 0.1
    again = call("export", "--out", run)
    assert again.returncode == 0
    assert "chosen" in again.stderr
    assert ("| tvm float32 |" in again.stderr) == bool(COMPILED)


def test_a_wrong_export_is_refused():
    good = ExportAccuracy("tflite", "float32", 0.90, 1)
    check_accuracies([good], 0.90, images=5000)
    with pytest.raises(UserError, match=r"tflite int8: 80.00% on validation where Keras has 90.00%.*not exported"):
        check_accuracies([good, ExportAccuracy("tflite", "int8", 0.80, 1)], 0.90, images=5000)
    check_accuracies([ExportAccuracy("tflite", "int8", 0.80, 1)], 0.90, images=30)  # three images


def test_offline_answers_are_those_of_artifacts_and_head(run, images):
    deployment = open_deployment(run / "export")
    manifest = deployment.manifest
    head = MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, 3)
    test = load_dataset(str(images)).test
    with np.load(run / "evaluation" / "answers.npz") as answers:
        stored = {name: answers[name] for name in answers.files}
    contents = [
        deployment.read(next(a for a in student.artifacts if a.precision == "int8")) for student in manifest.students
    ]
    for index in (0, 17, 35):
        features = {
            k: through_codec(run_artifact(content, test.images[index])[None], manifest.codecs[k])[0]
            for k, content in enumerate(contents)
        }
        for mask, present in ((3, (0, 1)), (1, (0,)), (2, (1,))):
            expected = probabilities(*head.merge({k: features[k] for k in present}))
            assert np.array_equal(stored[f"p{mask}"][index], expected)
            assert stored[f"c{mask}"][index] == expected.argmax()
    accuracy = float(np.mean(stored["c3"] == test.labels))
    assert accuracy == json.loads((run / "evaluation.json").read_text())["accuracy"]
    assert accuracy > 0.6  # chance is a third


def test_running_again_changes_nothing(run):
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}
    done = call("run", "--out", run)
    assert done.returncode == 0, done.stderr
    assert before == {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}


def test_curves_are_logged_for_tensorboard(run):
    assert list((run / "distill" / "logs").glob("events.out.tfevents.*"))
    history = json.loads((run / "distill" / "history.json").read_text())
    assert [entry["pass"] for entry in history] == [1, 2, 3, 4]
    assert {"loss", "val_accuracy", "val_accuracy_without_0"} <= history[0].keys()


def test_another_configuration_is_refused(run):
    done = call("distill", "--out", run, "--passes", "9")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "passes = 4, asked for 9" in one_error_line(done)


def test_an_unknown_lconv_is_answered_with_the_candidates(run, images, tmp_path):
    teacher = run / "teacher" / "teacher.keras"
    flags = ("--dataset", images, "--teacher", teacher, "--student", "cnn-4", "--out", tmp_path / "run")
    assert call("teacher", *flags, "--lconv", "conv9").returncode == 0
    done = call("activations", *flags, "--lconv", "conv9")
    assert done.returncode == ExitCode.BAD_INPUT
    line = one_error_line(done)
    assert "'conv9'" in line
    assert "lconv (12 filters)" in line


def test_more_students_than_filters_are_refused_before_training(run, images, tmp_path):
    flags = ("--dataset", images, "--teacher", run / "teacher" / "teacher.keras", "--lconv", "lconv")
    done = call("run", *flags, "--student", "cnn-4", "--students", "13", "--out", tmp_path / "run")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "12 filters" in one_error_line(done)
    assert not (tmp_path / "run" / "distill").exists()


def test_a_full_disk_leaves_nothing_half_written(run, images, tmp_path):
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    flags = ("--dataset", images, *SETTINGS, "--out", tmp_path / "run")
    done = call("teacher", *flags, preexec_fn=small_files)
    assert done.returncode == ExitCode.IO_ERROR, done.stderr
    one_error_line(done)
    left = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert not [file for file in left if file.suffix in (".part", ".keras", ".npz")]
    assert not (tmp_path / "run" / "teacher" / "stage.json").exists()


def test_ctrl_c_leaves_with_130_and_a_checkpoint(images, tmp_path):
    flags = ("--dataset", str(images), *SETTINGS, "--teacher-passes", "100000", "--out", str(tmp_path / "run"))
    with subprocess.Popen(command("teacher", *flags), stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        for line in program.stderr:
            if "pass 1/" in line:
                break
        os.kill(program.pid, signal.SIGINT)
        rest = program.stderr.read()
    assert program.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in rest
    assert (tmp_path / "run" / "teacher" / "checkpoint.npz").exists()
    assert not (tmp_path / "run" / "teacher" / "stage.json").exists()


def test_what_does_not_fit_is_refused_before_training(images, tmp_path):
    done = call("run", "--dataset", images, *SETTINGS, "--fit", "memory=2KB", "--out", tmp_path / "run")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "does not fit" in one_error_line(done)
    assert not (tmp_path / "run" / "teacher").exists()
