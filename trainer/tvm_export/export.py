"""A student for every CPU of a fleet: compiled, held against its TFLite file, refused if wrong."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.cpu_targets import this_cpu, why_unfit
from trainer.litert_batches import features_of
from trainer.tvm_export.compiler import CompiledStudent, check_parity, compile_student, run_compiled
from trainer.tvm_export.targets import TARGETS

# The three generations of 64-bit Pis, and PCs of the last ten years.
DEFAULT_TARGETS = ("aarch64-cortex-a53", "aarch64-cortex-a72", "aarch64-cortex-a76", "x86_64-v3")


def export_tvm_students(
    tflite_file: Path, folder: Path, images: NDArray[np.uint8], targets: Sequence[str] = DEFAULT_TARGETS
) -> list[CompiledStudent]:
    """Compile `tflite_file` (float32) to `folder`/STEM.TARGET.so for each target; WrongStudentError if one differs.

    images: validation images (n, height, width, channels), uint8. Code for other CPUs can't run here: what is checked
    then is the same network compiled for this one, and `make test-aarch64` runs the real code.
    """
    stem = tflite_file.name.removesuffix(".tflite").removesuffix(".float32")
    compiled = [compile_student(tflite_file, folder / f"{stem}.{target}.so", target) for target in targets]
    expected = features_of(tflite_file.read_bytes(), images).real().astype(np.float32)
    runnable = [student for student in compiled if runs_here(student.target)]
    try:
        for student in runnable or [_for_this_cpu(tflite_file, folder / f".{stem}.check.so")]:
            check_parity(run_compiled(student.path, images), expected, student.path.name)
    except Exception:
        for student in compiled:
            student.path.unlink(missing_ok=True)
        raise
    finally:
        (folder / f".{stem}.check.so").unlink(missing_ok=True)
    return compiled


def runs_here(target: str) -> bool:
    """Tell whether this machine can run code for the target."""
    return why_unfit(target, this_cpu()) is None


def _for_this_cpu(tflite_file: Path, path: Path) -> CompiledStudent:
    return compile_student(tflite_file, path, next(target for target in TARGETS if runs_here(target)))
