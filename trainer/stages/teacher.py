"""Stage `teacher`: train the teacher that was asked for by name, or adopt a .keras file."""

import time
from pathlib import Path
from typing import Any

from edge_agent.console.exit_codes import UserError
from trainer.run_context import RunContext
from trainer.run_directory import file_hash


def teacher_file(context: RunContext) -> Path:
    """Path of the trained teacher."""
    asked = context.run.configuration.teacher
    return Path(asked) if asked.endswith(".keras") else context.run.path / "teacher" / "teacher.keras"


def run(context: RunContext) -> dict[str, Any]:
    """Train or adopt; returns the stage's results."""
    settings, stage = context.run.configuration, context.run.stage("teacher")
    if not settings.teacher.endswith(".keras"):
        from trainer.teacher_training import train_teacher

        return train_teacher(context, stage)
    file = Path(settings.teacher)
    if not file.is_file():
        raise UserError(f"teacher {file}: does not exist; expected a .keras file or a network's name")
    stage.claim({"teacher": settings.teacher, "sha256": file_hash(file)})
    if not stage.finished:
        started = time.perf_counter()
        stage.finish({"file": str(file), "sha256": file_hash(file)}, time.perf_counter() - started)
    return stage.results()
