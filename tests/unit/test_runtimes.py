"""The runtimes on real files, good and bad."""

import hashlib
import json
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.runtimes import EngineError, open_runtime
from edge_agent.runtimes.litert import find_interpreter
from edge_agent.runtimes.student_runtime import MissingEngineError
from edge_agent.runtimes.tvm import check_elf
from edge_agent.runtimes.tvm_library import find_library, load_library
from edge_agent.runtimes.tvm_library import main as extract
from edge_agent.student_slot import open_student


def test_float_and_int8_artifacts_agree_with_the_golden_features(tiny, golden_image):
    for student in open_deployment(tiny).manifest.students:
        for artifact in student.artifacts:
            runtime = open_runtime(tiny / artifact.file, artifact.engine)
            features = runtime.run(golden_image)
            assert features.shape == (student.width,) == (runtime.width,)
            if artifact.precision == "int8":
                scale, zero_point = runtime.quantization
                assert features.dtype == np.int8
                features = (features.astype(np.float32) - zero_point) * scale
            else:
                assert runtime.quantization is None
            np.testing.assert_allclose(features, student.golden.features, atol=student.golden.tolerance)
            runtime.close()


def test_an_answer_belongs_to_the_caller(tiny, golden_image):
    runtime = open_runtime(tiny / "student-0.float32.tflite", "tflite")
    first = runtime.run(golden_image)
    kept = first.copy()
    runtime.run(255 - golden_image)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_agent_runs_its_student_on_as_many_threads_as_it_is_told(tiny, threads):
    code = """import os, sys
from edge_agent import cli  # before NumPy: it keeps BLAS to one thread
from edge_agent.roles import build_agent
from edge_agent.settings import AgentSettings
settings = {"students": (0,), "engine": "tflite", "precision": "float32"}
agent = build_agent(AgentSettings(deployment=sys.argv[1], num_threads=int(sys.argv[2]), **settings))
print(len(os.listdir("/proc/self/task")))"""
    found = subprocess.run([sys.executable, "-c", code, tiny, str(threads)], capture_output=True, text=True)
    assert found.stdout.strip() == str(threads), found.stderr


def test_threads_change_nothing_but_time(tiny, golden_image):
    one, two = (open_runtime(tiny / "student-0.float32.tflite", "tflite", n).run(golden_image) for n in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-5)
    with pytest.raises(EngineError, match="num_threads"):
        open_runtime(tiny / "student-0.float32.tflite", "tflite", 0)


@pytest.mark.parametrize("change", [lambda i: i[:-1], lambda i: i.astype(np.float32), lambda i: i[None]])
def test_images_of_another_shape_or_type_are_refused(tiny, golden_image, change):
    runtime = open_runtime(tiny / "student-0.int8.tflite", "tflite")
    with pytest.raises(EngineError, match="the student expects 8x8x1 uint8"):
        runtime.run(change(golden_image))


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 64, 0.5, 0.9, -1])
def test_cut_files_are_refused_in_one_line(tiny, tmp_path, keep):
    content = (tiny / "student-0.float32.tflite").read_bytes()
    size = int(len(content) * keep) if isinstance(keep, float) else keep
    (tmp_path / "cut.tflite").write_bytes(content[:size])
    with pytest.raises(EngineError) as caught:
        open_runtime(tmp_path / "cut.tflite", "tflite")
    assert "cut.tflite" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.BAD_INPUT


@pytest.mark.parametrize("engine", ["tflite", "tvm"])
def test_foreign_files_are_refused(repository, tmp_path, engine):
    for file in (repository / "pyproject.toml", tmp_path / "absent", tmp_path):
        with pytest.raises(EngineError, match=r"expected|not a TFLite file"):
            open_runtime(file, engine)


def test_unknown_engines_are_refused(tiny):
    with pytest.raises(EngineError, match="expected one of tflite, tvm"):
        open_runtime(tiny / "student-0.float32.tflite", "onnx")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="writes a header for the other architecture")
def test_libraries_of_another_cpu_and_cut_ones_are_refused(tmp_path):
    interpreter = bytearray(Path(sys.executable).resolve().read_bytes())
    struct.pack_into("<H", interpreter, 18, 183)
    (tmp_path / "arm.so").write_bytes(interpreter)
    with pytest.raises(EngineError, match="compiled for aarch64, this CPU is x86_64"):
        check_elf(tmp_path / "arm.so")
    struct.pack_into("<H", interpreter, 18, 62)
    (tmp_path / "cut.so").write_bytes(interpreter[:-1])
    with pytest.raises(EngineError, match="cut short"):
        check_elf(tmp_path / "cut.so")


def test_a_library_that_is_no_student_is_refused(tmp_path):
    pytest.importorskip("tvm_ffi")
    library = next(Path(np.__file__).parent.rglob("*.so"))
    with pytest.raises(EngineError, match="not a student"):
        open_runtime(library, "tvm")


def test_without_any_package_the_pip_line_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingEngineError, match="pip install") as caught:
        find_interpreter()
    assert caught.value.exit_code == ExitCode.UNAVAILABLE


def test_tflite_runtime_with_numpy_2_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setattr("edge_agent.runtimes.litert.metadata.version", lambda _: "2.14.0")
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(MissingEngineError, match=r"built for NumPy 1 and NumPy 2.1.0 is installed.*numpy<2"):
        find_interpreter()


def test_a_32_bit_system_is_told_that_it_needs_a_64_bit_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setattr("edge_agent.runtimes.litert.platform.machine", lambda: "armv7l")
    with pytest.raises(MissingEngineError, match=r"no TFLite interpreter for a armv7l CPU.*needs a 64-bit system"):
        find_interpreter()


def test_a_package_that_is_there_but_broken_says_why(monkeypatch):
    """As on a system whose libc is too old for the wheel."""
    broken = ImportError("libm.so.6: version `GLIBC_2.29' not found", name="_pywrap", path="/usr/lib/x.so")
    monkeypatch.setattr("builtins.__import__", _failing("ai_edge_litert.interpreter", broken, __import__))
    with pytest.raises(MissingEngineError, match=r"does not start \(libm.so.6: version .*\): pip install"):
        find_interpreter()


def _failing(name, error, real_import):
    def importer(wanted, *arguments, **more):
        if wanted == name:
            raise error
        return real_import(wanted, *arguments, **more)

    return importer


def test_tflite_runtimes_slow_path_is_warned_of_with_numbers(tiny, monkeypatch, caplog):
    """LiteRT's interpreter stands in for tflite-runtime's, which has the same interface and needs NumPy 1."""
    from ai_edge_litert import interpreter

    monkeypatch.setitem(sys.modules, "tflite_runtime", interpreter)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setattr("edge_agent.runtimes.litert.metadata.version", lambda _: "2.14.0")
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert open_runtime(tiny / "student-0.float32.tflite", "tflite").engine_version == "tflite-runtime 2.14.0"
    assert caplog.text == ""
    open_runtime(tiny / "student-0.int8.tflite", "tflite")
    assert "student-0.int8.tflite: tflite-runtime runs int8 and dynamic-range files about 4 times slower" in caplog.text
    assert "2126 and 2028 against 505 us" in caplog.text
    assert "pip install 'ai-edge-litert==" in caplog.text


def test_without_tvm_ffi_the_pip_line_is_said(monkeypatch, tmp_path):
    (tmp_path / "libtvm_runtime.so").write_bytes(b"\x7fELF")
    monkeypatch.setenv("NONN_TVM_RUNTIME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tvm_ffi", None)
    with pytest.raises(
        MissingEngineError, match=r"TVM students need tvm_ffi .*pip install 'apache-tvm-ffi=="
    ) as caught:
        load_library()
    assert caught.value.exit_code == ExitCode.UNAVAILABLE


def test_a_tvm_runtime_of_another_platform_is_said(monkeypatch, tmp_path):
    pytest.importorskip("tvm_ffi")
    (tmp_path / "libtvm_runtime.so").write_bytes(b"\x7fELF")
    monkeypatch.setenv("NONN_TVM_RUNTIME", str(tmp_path))
    with pytest.raises(MissingEngineError, match=r"libtvm_runtime.so: does not load here"):
        load_library()


def test_a_student_that_takes_other_images_than_its_manifest_says_is_refused(tiny, tmp_path):
    """A file of another deployment under the right name, listed with its own hash."""
    folder = Path(shutil.copytree(tiny, tmp_path / "d"))
    content = json.loads((folder / "manifest.json").read_text())
    content["input"]["width"], content["golden_input"]["size_bytes"] = 16, 8 * 16
    golden = bytes(8 * 16)
    content["golden_input"]["sha256"] = hashlib.sha256(golden).hexdigest()
    (folder / content["golden_input"]["file"]).write_bytes(golden)
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"image \(8, 8, 1\) -> 5 features, the manifest says \(8, 16, 1\) -> 5"):
        open_student(open_deployment(folder), 0, "tflite", "int8", 1)


def test_a_named_tvm_runtime_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("NONN_TVM_RUNTIME", str(tmp_path))
    with pytest.raises(MissingEngineError, match="NONN_TVM_RUNTIME"):
        find_library()


def test_a_wheel_without_the_runtime_is_refused(tmp_path, capsys):
    (tmp_path / "apache_tvm-0.1-py3-none-any.whl").write_bytes(b"no zip")
    assert extract([str(tmp_path / "apache_tvm-0.1-py3-none-any.whl"), str(tmp_path)]) == ExitCode.UNAVAILABLE
    assert extract([str(tmp_path / "numpy-2.0-none.whl"), str(tmp_path)]) == ExitCode.UNAVAILABLE
    assert "expected a wheel of apache-tvm" in capsys.readouterr().err


def test_importing_the_seam_imports_no_engine():
    code = "import sys, edge_agent.runtimes; print(any(m in sys.modules for m in ('ai_edge_litert', 'tvm_ffi', 'tvm')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
