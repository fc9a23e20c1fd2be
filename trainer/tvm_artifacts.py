"""TVM modules of a run's students: which CPUs, compiled beside each other, refused or left out with a reason."""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.progress import say
from trainer.tvm_export.outcome import (
    ExportedModules,
    MissingCompilerError,
    UnsupportedStudentError,
    WrongStudentError,
)
from trainer.tvm_export.targets import CROSS_COMPILER, TARGETS, best_host_target
from trainer.worker_pool import open_pool

LONGEST_COMPILE_S = 30.0  # of one student for one CPU; more means that the generator lost itself


def tvm_targets(asked: Sequence[str]) -> tuple[str, ...]:
    """Names of CPUs for `--tvm`: auto (this CPU, and the Pis where there is a cross compiler), none, host, or names."""
    if tuple(asked) == ("none",):
        return ()
    if tuple(asked) == ("auto",):
        if not _installed():
            return ()
        cross = shutil.which(CROSS_COMPILER) or importlib.util.find_spec("ziglang")
        pis = [name for name, target in TARGETS.items() if target.machine == "aarch64"] if cross else []
        return tuple(dict.fromkeys([*pis, best_host_target()]))
    names = [best_host_target() if name == "host" else name for name in asked]
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        expected = f"auto, none, host, {', '.join(TARGETS)}"
        raise UserError(f"--tvm {unknown[0]}: expected some of {expected}", ExitCode.CONFIGURATION)
    if not _installed():
        raise UserError(
            "--tvm: apache-tvm is not installed; expected pip install '.[trainer,tvm]' in a clone, or --tvm none",
            ExitCode.UNAVAILABLE,
        )
    return tuple(dict.fromkeys(names))


def compile_students(
    float_files: Sequence[Path], images: NDArray[np.uint8], asked: Sequence[str], workers: int
) -> list[ExportedModules]:
    """Compile every student's float32 file for the asked CPUs, beside it; [] where that is not wanted or possible.

    In processes of their own: TVM and TensorFlow each bring an LLVM. UserError for a module that answers otherwise than
    its TFLite file, and, unless `asked` is auto, for a network or compiler that can't be served.
    """
    targets = tvm_targets(asked)
    if not targets:
        return []
    say(f"export: compiling {len(float_files)} students with TVM for {', '.join(targets)}")
    try:
        with open_pool(min(max(workers, 1), len(float_files))) as pool:
            jobs = [pool.submit(_export, file, images, targets) for file in float_files]
            exported = [job.result() for job in jobs]
    except WrongStudentError as error:
        raise UserError(f"{error}; not exported", ExitCode.FAILED) from None
    except (UnsupportedStudentError, MissingCompilerError) as error:
        for file in float_files:
            for leftover in file.parent.glob(f"{file.name.split('.')[0]}.*.so"):
                leftover.unlink()
        if tuple(asked) != ("auto",):
            raise UserError(f"TVM: {error}", ExitCode.UNAVAILABLE) from None
        say(f"export: without TVM modules: {error}")
        return []
    _tell(exported)
    return exported


def _tell(exported: list[ExportedModules]) -> None:
    """Say what the table cannot: which code was run for it, and what took long."""
    if exported[0].shown.target != exported[0].ran:
        say(f"export: none of them runs here; checked as the same networks compiled for {exported[0].ran}")
    for modules in exported:
        for module in modules.compiled:
            if module.compile_s > LONGEST_COMPILE_S:
                took = f"{module.compile_s:.0f} s to compile, expected {LONGEST_COMPILE_S:g}"
                say(f"export: {module.path.name} took {took}")


def _export(file: Path, images: NDArray[np.uint8], targets: Sequence[str]) -> ExportedModules:
    from trainer.tvm_export.export import export_tvm_students

    return export_tvm_students(file, file.parent, images, targets)


def _installed() -> bool:
    return all(importlib.util.find_spec(package) for package in ("tvm", "tvm_ffi", "tflite"))
