"""The files of an export: every student in every precision, and compiled by TVM."""

from pathlib import Path
from typing import Any

from trainer.artifacts import ExportedStudent, export_student
from trainer.progress import progress_bar
from trainer.run_context import RunContext
from trainer.student_network import extract_student
from trainer.tvm_artifacts import compile_students, tvm_targets
from trainer.tvm_export.outcome import ExportedModules

# The order in which agents choose where nothing is timed; heads are fitted to the first.
PREFERENCE = ("int8", "dynamic", "float16", "float32")
Exported = list[tuple[Any, list[ExportedStudent]]]  # each student's Keras network and its files


def export_files(context: RunContext, joint: Any, folder: Path) -> Exported:
    """Convert every student to every precision; one that differs from Keras is refused."""
    settings, dataset = context.run.configuration, context.dataset
    exported = []
    with progress_bar("export", settings.students * len(settings.precisions)) as advance:
        for index in range(settings.students):
            student, files = extract_student(joint, index), []
            for precision in settings.precisions:
                path = folder / f"student-{index}.{precision}.tflite"
                files.append(export_student(student, precision, dataset.train.images, dataset.validation.images, path))
                advance(1, path.name)
            exported.append((student, files))
    return exported


def preferred(files: list[ExportedStudent]) -> ExportedStudent:
    """The file that devices run where nothing is timed."""
    return min(files, key=lambda file: PREFERENCE.index(file.precision))


def compiled_modules(context: RunContext, exported: Exported, folder: Path) -> list[ExportedModules]:
    """Compile the float32 files, checked against them on the whole validation split; [] without TVM."""
    settings, images = context.run.configuration, context.dataset.validation.images
    files = []
    for index, (student, made) in enumerate(exported):
        path = folder / f"student-{index}.float32.tflite"
        if not any(file.path == path for file in made) and tvm_targets(settings.tvm):
            export_student(student, "float32", images, images, path)
        files.append(path)
    modules = compile_students(files, images, settings.tvm, context.workers)
    if "float32" not in settings.precisions:
        for path in files:
            path.unlink(missing_ok=True)  # only TVM had asked for it
    return modules
