"""Start a run from what another one has made: the teacher's outputs take longer than some students."""

import os
import shutil
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.run_directory import RunDirectory

STAGES = ("teacher", "activations")


def link_teacher(source: Path, run: RunDirectory) -> None:
    """Give `run` the finished stages `teacher` and `activations` of the run `source`, by hard links where possible.

    A stage that `run` already has stays. Whether its settings fit is checked by the stage itself when it runs.
    """
    for name in STAGES:
        finished, target = source / name, run.path / name
        if not (finished / "stage.json").is_file():
            raise UserError(f"{source}: its stage {name} is not finished; expected the directory of another run")
        if target.exists():
            continue
        partial = run.path / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            shutil.copytree(finished, partial, copy_function=_link)
            partial.rename(target)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError(f"{target}: {error.strerror or error}", ExitCode.IO_ERROR) from None


def _link(source: str, target: str) -> str:
    """Files of finished stages are replaced, never changed, so that two runs can share them."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return target
