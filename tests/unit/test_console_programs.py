"""Bad input on the command line: one line, the right exit code, no traceback, nothing half-written."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coordinator.cli import main as coordinator
from coordinator.evaluate import read_expected
from edge_agent.cli import main as agent
from edge_agent.console.exit_codes import UserError

Refusal = Callable[..., str]


@pytest.fixture
def refusal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refusal:
    """Run a program that must end with `code` and one `error: ...` line, which is returned."""
    for name in [name for name in os.environ if name.startswith("NONN_")]:
        monkeypatch.delenv(name)

    def run(main: Callable[[list[str]], int], code: int, *arguments: object) -> str:
        try:
            found = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            found = int(str(ended.code))
        captured = capfd.readouterr()
        lines = [line for line in captured.err.splitlines() if not line.startswith("INFO")]
        assert (found, captured.out) == (code, ""), captured.err
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


@pytest.fixture
def deployment(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "deployment"))


def rewrite(deployment: Path, change: Callable[[Any], None]) -> None:
    manifest = json.loads((deployment / "manifest.json").read_bytes())
    change(manifest)
    (deployment / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        (agent, [], "COMMAND"),
        (agent, ["fly"], "fly"),
        (agent, ["run", "--wings", "2"], "--wings"),
        (agent, ["run", "--students", "0", "--student", "1"], "--student 1; expected --students?"),
        (coordinator, ["classify"], "FILE"),
        (coordinator, ["evaluate"], "--dataset"),
        (coordinator, ["classify", "x.png", "--window", "0"], "'0' is not a positive number"),
        (coordinator, ["classify", "x.png", "--wait", "nan"], "'nan' is not a positive number"),
        (coordinator, ["evaluate", "--dataset", ".", "--rate", "-1"], "'-1' is not a positive number"),
        (coordinator, ["classify", "x.png", "--source", "Bad/Name"], "source 'Bad/Name': expected 1 to 63"),
    ],
)
def test_usage_errors(refusal: Refusal, main: Callable[[list[str]], int], arguments: list[str], words: str) -> None:
    line = refusal(main, 64, *arguments)
    assert words in line
    assert line.endswith("--help")


def test_settings_errors(refusal: Refusal, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml = tmp_path / "bad.toml"
    toml.write_text("[broker]\nprot = 1883\n")
    assert f"{toml}:2: broker.prot: no such setting; expected broker.port" in refusal(
        agent, 78, "run", "--config", toml
    )
    assert "--students" in refusal(agent, 78, "run", "--deployment", tiny, "--students", "x")
    assert "--quorum" in refusal(coordinator, 78, "run", "--deployment", tiny, "--quorum", "0")
    assert "quorum: 4; expected at most" in refusal(coordinator, 78, "run", "--deployment", tiny, "--quorum", "4")
    monkeypatch.setenv("NONN_BROKER_PORT", "many")
    assert "environment NONN_BROKER_PORT" in refusal(coordinator, 78, "classify", "x.png")


def test_deployments_that_are_none(refusal: Refusal, tmp_path: Path) -> None:
    for main, more in ((agent, ["--students", "0"]), (coordinator, [])):
        line = refusal(main, 65, "run", "--deployment", tmp_path, *more)
        assert f"{tmp_path}/manifest.json: No such file or directory; expected a deployment directory" in line
        assert "manifest" in refusal(main, 65, "run", "--deployment", "/dev/null", *more)
        (tmp_path / "manifest.json").write_text("{")
        assert "manifest.json: manifest" in refusal(main, 65, "run", "--deployment", tmp_path, *more)
        (tmp_path / "manifest.json").unlink()


def test_the_run_of_a_deployment_names_the_folder_inside(refusal: Refusal, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "export")
    assert refusal(coordinator, 65, "run", "--deployment", tmp_path).endswith(f"expected {tmp_path}/export")


def test_students_that_are_not_there(refusal: Refusal, tiny: Path) -> None:
    line = refusal(agent, 65, "run", "--deployment", tiny, "--students", "3")
    assert "has 3 students; expected 0 to 2" in line
    assert "no artifact for" in refusal(
        agent, 65, "run", "--deployment", tiny, "--students", "0", "--precision", "float16"
    )


def test_artifacts_that_were_changed_cut_or_lost(refusal: Refusal, deployment: Path) -> None:
    artifact = deployment / "student-0.int8.tflite"
    run = (agent, 65, "run", "--deployment", deployment, "--students", "0", "--precision", "int8")
    content = artifact.read_bytes()
    artifact.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "student-0.int8.tflite: sha256" in refusal(*run)
    artifact.write_bytes(content[:100])
    assert "100 bytes, the manifest says 2568" in refusal(*run)
    artifact.unlink()
    assert "No such file or directory; the manifest lists it" in refusal(*run)


def test_a_corrupt_tflite_file_with_the_right_hash(refusal: Refusal, deployment: Path) -> None:
    artifact = deployment / "student-0.int8.tflite"
    for content in (b"not a TFLite file at all", artifact.read_bytes()[:600], b"\0\0\0\0TFL3" + bytes(200)):
        artifact.write_bytes(content)

        def rehash(manifest: Any, content: bytes = content) -> None:
            entry = manifest["students"][0]["artifacts"][0]
            entry["size_bytes"], entry["sha256"] = len(content), hashlib.sha256(content).hexdigest()

        rewrite(deployment, rehash)
        line = refusal(agent, 65, "run", "--deployment", deployment, "--students", "0", "--precision", "int8")
        assert "student-0.int8.tflite" in line


def test_a_student_that_does_not_answer_as_promised(refusal: Refusal, deployment: Path) -> None:
    rewrite(deployment, lambda manifest: manifest["students"][0]["golden"].update(features=[9.0] * 5))
    line = refusal(agent, 65, "run", "--deployment", deployment, "--students", "0", "--precision", "int8")
    assert "self-test failed" in line


def test_a_head_that_does_not_fit(refusal: Refusal, deployment: Path) -> None:
    for content in (b"not a head", b"PK\x03\x04" + bytes(100)):
        (deployment / "head.npz").write_bytes(content)
        entry = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        rewrite(deployment, lambda manifest, entry=entry: manifest["head"].update(entry))
        assert "head.npz: head: not an .npz file" in refusal(coordinator, 65, "run", "--deployment", deployment)


def test_data_sets_that_are_none(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "test" / "cat").mkdir(parents=True)
    assert "no images; expected test/CLASS/*.png" in refusal(coordinator, 65, "evaluate", "--dataset", tmp_path)
    assert "absent: No such file or directory; expected a folder" in refusal(
        coordinator, 65, "evaluate", "--dataset", tmp_path / "absent"
    )
    assert "x.png: No such file" in refusal(coordinator, 65, "classify", tmp_path / "x.png")
    assert "Is a directory" in refusal(coordinator, 65, "classify", tmp_path)


def test_what_would_fail_after_the_last_frame_fails_before_the_first(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "test" / "cat").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "test" / "cat" / "0.png")
    (tmp_path / "answers.npz").write_bytes(b"PK\x03\x04 nothing")
    evaluate = (coordinator, 65, "evaluate", "--dataset", tmp_path)
    assert "answers.npz: not an .npz" in refusal(*evaluate, "--expect", tmp_path / "answers.npz")
    assert "No such file" in refusal(*evaluate, "--expect", tmp_path / "none.npz")
    assert "no such folder" in refusal(*evaluate, "--out", tmp_path / "none" / "report.json")
    assert not (tmp_path / "none").exists()


def test_an_array_instead_of_answers_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(UserError, match="expected the answers"):
        read_expected(tmp_path / "array.npy")


def test_a_missing_authority_file_is_named(refusal: Refusal, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x.png")
    line = refusal(coordinator, 74, "classify", tmp_path / "x.png", "--broker-ca-file", tmp_path / "ca.pem")
    assert "ca.pem: No such file" in line
    (tmp_path / "ca.pem").write_text("not a certificate")
    line = refusal(coordinator, 74, "classify", tmp_path / "x.png", "--broker-ca-file", tmp_path / "ca.pem")
    assert "ca.pem: no usable PEM" in line


@pytest.mark.parametrize("module", ["edge_agent.cli", "coordinator.cli"])
def test_real_processes_say_the_same(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module]
    bad = subprocess.run(
        [*command, "run", "--deployment", str(tmp_path), "--students", "0"], capture_output=True, text=True
    )
    expected = 65 if module == "edge_agent.cli" else 64  # --students is no flag of the coordinator
    assert bad.returncode == expected
    assert bad.stderr.count("\n") == 1
    assert bad.stderr.startswith("error: ")
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert "examples:" in shown.stdout
    assert "exit codes:" in shown.stdout


def test_a_dashboard_on_a_taken_port_is_refused(tiny: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = ["run", "--deployment", str(tiny), "--broker-port", "1", "--dashboard-port", port]
        bad = subprocess.run(
            [sys.executable, "-m", "coordinator.cli", *command], capture_output=True, text=True, timeout=120
        )
    assert bad.returncode == 69
    (line,) = bad.stderr.splitlines()
    assert line.startswith("error: ")
    assert port in line
