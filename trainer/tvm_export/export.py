"""A student for every CPU of a fleet: compiled, held against its TFLite file, refused if wrong."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.litert_batches import features_of
from trainer.tvm_export.compiler import check_parity, compile_student, run_compiled
from trainer.tvm_export.outcome import ExportedModules
from trainer.tvm_export.targets import best_host_target, runs_here

# The three generations of 64-bit Pis, and PCs of the last ten years.
DEFAULT_TARGETS = ("aarch64-cortex-a53", "aarch64-cortex-a72", "aarch64-cortex-a76", "x86_64-v3")


def export_tvm_students(
    tflite_file: Path, folder: Path, images: NDArray[np.uint8], targets: Sequence[str] = DEFAULT_TARGETS
) -> ExportedModules:
    """Compile `tflite_file` (float32) to `folder`/STEM.TARGET.so for each target; WrongStudentError if one differs.

    images: validation images (n, height, width, channels), uint8. Code for other CPUs can't run here: what is checked
    then is the same network compiled for this one, and `make test-aarch64` runs the real code.
    """
    stem = tflite_file.name.removesuffix(".tflite").removesuffix(".float32")
    compiled = [compile_student(tflite_file, folder / f"{stem}.{target}.so", target) for target in targets]
    expected = features_of(tflite_file.read_bytes(), images).real().astype(np.float32)
    runnable = [student for student in compiled if runs_here(student.target)]
    check_file = folder / f".{stem}.check.so"
    try:
        for student in runnable or [compile_student(tflite_file, check_file, best_host_target())]:
            features = run_compiled(student.path, images)
            error, ran = check_parity(features, expected, student.path.name), student.target
    except Exception:
        for student in compiled:
            student.path.unlink(missing_ok=True)
        raise
    finally:
        check_file.unlink(missing_ok=True)
    return ExportedModules(tuple(compiled), features, ran, error)
