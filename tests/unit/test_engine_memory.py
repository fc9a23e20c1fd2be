"""The engine choice is made once, kept beside the student, and made again when what it depends on changes."""

import json
import shutil
from pathlib import Path

import pytest

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.console.exit_codes import UserError
from edge_agent.engine_memory import same_kind
from edge_agent.managed_agent import needed_files
from edge_agent.settings import AgentSettings
from edge_agent.student_slot import StudentSlot, install_student

MEMORY = ".engine-choice-0.json"


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny deployment that remembers nothing."""
    return Path(shutil.copytree(tiny, tmp_path / "d", ignore=shutil.ignore_patterns(".engine-choice-*")))


def install(folder: Path, engine: str = "auto", precision: str = "auto", threads: int = 1) -> StudentSlot:
    return install_student(open_deployment(folder), 0, engine, precision, threads)


def swap_memory(folder: Path) -> str:
    """Make the memory name the artifact that was not chosen: only a program that believes it opens that one."""
    memory = json.loads((folder / MEMORY).read_text())
    memory["artifact"] = next(file for file in memory["times_ms"] if file != memory["artifact"])
    (folder / MEMORY).write_text(json.dumps(memory))
    return str(memory["artifact"])


def test_the_first_start_times_all_and_the_second_remembers(folder: Path) -> None:
    info = install(folder).info
    assert info.times_ms is not None
    assert set(info.times_ms) == {"student-0.int8.tflite", "student-0.float32.tflite"}
    assert all(ms > 0 for ms in info.times_ms.values())
    assert info.artifact in info.times_ms
    assert info.artifacts_refused is None
    other = swap_memory(folder)
    assert install(folder).info.artifact == other


def test_other_settings_are_another_choice(folder: Path) -> None:
    install(folder)
    before = json.loads((folder / MEMORY).read_text())["key"]
    install(folder, threads=2)
    assert json.loads((folder / MEMORY).read_text())["key"] != before


def test_another_engine_version_is_another_choice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder)
    other = swap_memory(folder)
    monkeypatch.setenv("NONN_TVM_RUNTIME", str(folder))  # a runtime that came, or went
    (folder / "libtvm_runtime.so").write_bytes(b"")
    (folder / "libtvm_runtime.version").write_text("0.99\n")
    memory = json.loads((folder / MEMORY).read_text())
    install(folder)
    assert json.loads((folder / MEMORY).read_text())["key"] != memory["key"], other


@pytest.mark.parametrize("content", [b"", b"{", b'{"key": 1}', b"\xff"])
def test_a_damaged_memory_costs_one_more_timing(folder: Path, content: bytes) -> None:
    (folder / MEMORY).write_bytes(content)
    assert install(folder).info.times_ms
    json.loads((folder / MEMORY).read_text())


def test_a_folder_that_takes_no_file_only_warns(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / MEMORY).mkdir()
    assert install(folder).info.times_ms
    assert "timed again at the next start" in caplog.text


def test_one_fitting_artifact_needs_no_timing(folder: Path) -> None:
    info = install(folder, precision="int8").info
    assert info.precision == "int8"
    assert info.times_ms is None
    assert not (folder / MEMORY).exists()


def test_files_that_were_not_fetched_are_no_candidates(folder: Path) -> None:
    (folder / "student-0.int8.tflite").unlink()
    assert install(folder).info.precision == "float32"
    (folder / "student-0.float32.tflite").unlink()
    with pytest.raises(UserError, match="No such file or directory; the manifest lists it"):
        install(folder)


def test_a_damaged_file_is_named_before_an_engine_sees_it(folder: Path) -> None:
    path = folder / "student-0.float32.tflite"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"student-0.float32.tflite: sha256"):
        install(folder)


def test_what_fails_here_is_reported_and_not_used(folder: Path) -> None:
    """The int8 file lies in the manifest as a TVM module: it is one that this CPU could run, and no such thing."""
    content = json.loads((folder / "manifest.json").read_text())
    content["students"][0]["artifacts"][0]["engine"] = "tvm"
    (folder / "manifest.json").write_text(json.dumps(content))
    info = install(folder).info
    assert info.precision == "float32"
    assert info.artifacts_refused is not None
    assert "student-0.int8.tflite" in info.artifacts_refused


AUTO = ("auto", "auto", 1)


def test_the_kind_that_was_chosen_is_known_for_the_next_deployment(folder: Path) -> None:
    chosen = install(folder).info.artifact
    before = open_deployment(folder)
    student = before.manifest.students[0]
    found = same_kind(before, student, *AUTO)
    assert found is not None
    assert found.file == chosen
    renamed = student.model_copy(update={"artifacts": tuple(a.model_copy(update={"file": "x"}) for a in [found])})
    assert same_kind(before, renamed, *AUTO) == renamed.artifacts[0]  # the kind counts, not the name
    others = tuple(artifact for artifact in student.artifacts if artifact.file != chosen)
    assert same_kind(before, student.model_copy(update={"artifacts": others}), *AUTO) is None


def test_what_tells_nothing_of_the_next_deployment_is_not_believed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_deployment(folder)
    student = before.manifest.students[0]
    assert same_kind(before, student, *AUTO) is None, "nothing was chosen yet"
    install(folder)
    assert same_kind(before, student, *AUTO) is not None
    assert same_kind(before, student.model_copy(update={"network": "vgg-11"}), *AUTO) is None
    assert same_kind(before, before.manifest.students[1], *AUTO) is None, "another student was never opened here"
    assert same_kind(before, student.model_copy(update={"index": 9}), *AUTO) is None
    assert same_kind(before, student, "tflite", "auto", 1) is None
    assert same_kind(before, student, "auto", "auto", 2) is None
    monkeypatch.setattr("edge_agent.engine_memory.engine_versions", lambda: {"ai-edge-litert": "9.9.9"})
    assert same_kind(before, student, *AUTO) is None, "another engine may be faster with another file"


def test_a_device_fetches_everything_once_and_then_what_it_runs(folder: Path) -> None:
    before = open_deployment(folder)
    settings = AgentSettings(deployment=folder, students=(0, 1))
    everything = {entry.file for entry in needed_files(settings, before.manifest)}
    assert everything == {
        "golden-input.bin", "student-0.int8.tflite", "student-0.float32.tflite",
        "student-1.int8.tflite", "student-1.float32.tflite",
    }  # fmt: skip
    chosen = install(folder).info.artifact
    then = [entry.file for entry in needed_files(settings, before.manifest, before)]
    assert then == ["golden-input.bin", chosen, "student-1.int8.tflite", "student-1.float32.tflite"]
    auto = AgentSettings(deployment=folder, students="auto")
    assert len(needed_files(auto, before.manifest, before)) == 1 + len(before.manifest.students)


def test_one_file_of_several_is_timed_before_it_is_opened(folder: Path) -> None:
    (folder / "student-0.float32.tflite").unlink()
    deployment = open_deployment(folder)
    assert install_student(deployment, 0, *AUTO).info.times_ms is None
    info = install_student(deployment, 0, *AUTO, test_alone=True).info
    assert list(info.times_ms or {}) == ["student-0.int8.tflite"]
    path = folder / "student-0.int8.tflite"
    content = (folder / "student-1.int8.tflite").read_bytes()
    path.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = next(a for a in manifest["students"][0]["artifacts"] if a["file"] == path.name)
    twin = next(a for a in manifest["students"][1]["artifacts"] if a["precision"] == "int8")
    entry.update(sha256=twin["sha256"], size_bytes=twin["size_bytes"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"no artifact works on this device: student-0.int8.tflite: gives 4 features"):
        install_student(open_deployment(folder), 0, *AUTO, test_alone=True)
