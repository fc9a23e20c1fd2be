"""Build steps that remember: a step whose inputs did not change is not done again."""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.console.atomic_file import sync_folder
from firmware_images.spec import fingerprint


class StageCache:
    """A folder of finished steps, each named by step and the fingerprint of its inputs."""

    def __init__(self, folder: Path, *, quiet: bool = False) -> None:
        self.folder = folder.resolve()  # systemctl --root wants no ../ in it
        self.quiet = quiet
        self.seconds: dict[str, float] = {}
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True)

    def step(self, name: str, inputs: object, produce: Callable[[Path], None], *, fresh: bool = False) -> Path:
        """Return the folder that `produce` filled, now or in an earlier run; an interrupted one starts over."""
        self._number += 1
        finished = self.folder / f"{name}-{fingerprint(inputs)}"
        if finished.is_dir() and not fresh:
            self.say(f"{self._number}. {name}: from cache ({finished.name})")
            self.seconds[name] = 0.0
            return finished
        unfinished = self.folder / f"{finished.name}.unfinished"
        remove_tree(unfinished)
        unfinished.mkdir()
        self.say(f"{self._number}. {name} ...")
        started = time.monotonic()
        produce(unfinished)
        remove_tree(finished)
        unfinished.rename(finished)
        sync_folder(self.folder)
        self.seconds[name] = time.monotonic() - started
        self.say(f"{self._number}. {name}: {self.seconds[name]:.1f} s")
        return finished

    def say(self, line: str) -> None:
        """Show progress on standard error, where it does not mix with results."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)


def remove_tree(folder: Path) -> None:
    """Delete a folder if it is there."""
    if folder.exists():
        shutil.rmtree(folder)
