"""Which of a student's artifacts runs: what fits the CPU, what agrees, what is fastest."""

import shutil
import sys

import pytest

from edge_agent.console.cpu_targets import ANY_TARGET, CPUFeatures, why_unfit
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.console.exit_codes import UserError
from edge_agent.engine_choice import Candidate, allowed, choose_engine, select
from edge_agent.protocol.manifest import Artifact
from edge_agent.trial import Trial, TrialFailedError, run_trial

PI3 = CPUFeatures("aarch64", frozenset({"fp", "asimd", "crc32"}))


def test_targets_fit_the_cpus_they_name():
    assert why_unfit(ANY_TARGET, PI3) is None
    assert why_unfit("aarch64-cortex-a53", PI3) is None
    assert why_unfit("aarch64-cortex-a76", PI3) == "needs asimddp, asimdhp, atomics"
    assert why_unfit("x86_64-v4", CPUFeatures("x86_64", frozenset({"avx2", "fma", "bmi2"}))).startswith("needs avx512")
    assert why_unfit("x86_64-v3", PI3) == "needs x86_64, this is aarch64"
    assert "unknown target" in why_unfit("riscv", PI3)


def _artifact(file, engine="tflite", target="any"):
    return Artifact(file=file, size_bytes=1, sha256="0" * 64, engine=engine, precision="float32", target=target)


def _candidate(file, median_us, error):
    trial = Trial("e", (0.0,), 1, 1, 1, median_us, median_us, median_us, 1, None, "none", 10, 1, 1)
    return Candidate(_artifact(file), trial, error)


def test_the_fastest_that_agrees_is_chosen():
    wrong, slow, fast = _candidate("wrong", 1, 0.5), _candidate("slow", 30, 0.0), _candidate("fast", 10, 0.1)
    assert select([wrong, slow, fast], tolerance=0.2) is fast
    assert select([wrong], tolerance=0.2) is None
    assert select([Candidate(_artifact("x"), refused="why")], tolerance=0.2) is None


def test_among_equally_fast_the_truer_one_is_chosen():
    near, true = _candidate("near", 100, 0.1), _candidate("true", 102, 0.0)
    assert select([near, true], tolerance=0.2) is true


def test_artifacts_for_other_cpus_and_engines_not_asked_for_are_not_tried():
    artifacts = [_artifact("a"), _artifact("b", "tvm", "x86_64-v4"), _artifact("c", "tvm", "aarch64-cortex-a53")]
    assert [bool(c.refused) for c in allowed(artifacts, PI3)] == [False, True, False]
    assert [c.artifact.file for c in allowed(artifacts, PI3, engine="tvm")] == ["b", "c"]
    assert allowed(artifacts, PI3, precision="int8") == []


def test_choice_times_every_artifact_and_reports(tiny, golden_image):
    student = open_deployment(tiny).manifest.students[0]
    choice = choose_engine(tiny, student, golden_image)
    assert set(choice.times_ms) == {artifact.file for artifact in student.artifacts}
    assert choice.chosen.error <= student.golden.tolerance


def test_a_damaged_artifact_is_passed_over(tiny, golden_image, tmp_path):
    shutil.copytree(tiny, tmp_path / "d")
    student = open_deployment(tmp_path / "d").manifest.students[0]
    fast = choose_engine(tmp_path / "d", student, golden_image).chosen.artifact
    content = (tmp_path / "d" / fast.file).read_bytes()
    (tmp_path / "d" / fast.file).write_bytes(content[: len(content) // 2])
    choice = choose_engine(tmp_path / "d", student, golden_image)
    assert choice.chosen.artifact.file != fast.file
    assert [c.artifact.file for c in choice.candidates if c.refused] == [fast.file]


def test_no_working_artifact_is_an_error_with_every_reason(tiny, golden_image):
    student = open_deployment(tiny).manifest.students[0]
    golden = student.golden.model_copy(update={"features": (9.0,) * student.width, "tolerance": 1e-3})
    with pytest.raises(UserError, match=r"no artifact works.*int8.*off by.*float32.*off by"):
        choose_engine(tiny, student.model_copy(update={"golden": golden}), golden_image)


def test_a_crash_of_the_engine_is_reported_not_shared(golden_image, monkeypatch, tmp_path):
    script = tmp_path / "crash"
    script.write_text(f"#!{sys.executable}\nimport os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(TrialFailedError, match="crashed with signal 11"):
        run_trial(tmp_path / "student.so", "tvm", 1, golden_image)
