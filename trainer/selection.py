"""A smaller deployment: the same students and head, fewer precisions."""

import shutil
from collections.abc import Collection
from pathlib import Path

from edge_agent.console.atomic_file import sync_folder, write_atomically
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.console.exit_codes import UserError


def select_precisions(source: Path, precisions: Collection[str], target: Path) -> int:
    """Copy `source` with these precisions alone to `target`, which must not exist; returns its bytes."""
    deployment = open_deployment(source)
    students = []
    for student in deployment.manifest.students:
        kept = tuple(artifact for artifact in student.artifacts if artifact.precision in precisions)
        if not kept:
            there = ", ".join(sorted({artifact.precision for artifact in student.artifacts}))
            raise UserError(f"{source}: student {student.index} has none of {', '.join(precisions)}; it has {there}")
        students.append(student.model_copy(update={"artifacts": kept}))
    manifest = deployment.manifest.model_copy(update={"students": tuple(students)})
    if target.exists():
        raise UserError(f"{target}: exists already; expected a new folder")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for entry in manifest.files():
        write_atomically(partial / entry.file, deployment.read(entry))
    write_atomically(partial / "manifest.json", manifest.to_bytes())
    partial.replace(target)
    sync_folder(target.parent)
    return sum(file.stat().st_size for file in target.iterdir())
