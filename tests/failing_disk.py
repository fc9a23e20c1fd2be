"""File operations that fail, die or lose what was not synced, at the n-th of them; and two versions to store."""

import hashlib
import os
import signal
from pathlib import Path

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.console.file_operations import FileOperations

TINY = open_deployment(Path(__file__).parent / "fixtures" / "tiny")


def version(number):
    """Another deployment: the same files, another manifest."""
    content = TINY.manifest.model_copy(update={"version": number}).to_bytes()
    return hashlib.sha256(content).hexdigest()[:16], content


OLD, NEW = version(1), version(2)


class Steps(FileOperations):
    """Real file operations, and something that happens at the n-th."""

    def __init__(self, at=0, then=None):
        self.count, self._at, self._then = 0, at, then

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("_") or name in ("count", "step") or not callable(found):
            return found

        def counted(*arguments):
            self.step()
            return found(*arguments)

        return counted

    def step(self):
        self.count += 1
        if self.count == self._at:
            self._then()


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_process_that_dies(job):
    """Run `job` in a fork; True if SIGKILL ended it."""
    child = os.fork()
    if child == 0:
        try:
            job()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


class PowerCutError(BaseException):
    pass


class LosesWhatIsNotSynced(Steps):
    """A power cut: content that was not fsynced is gone, and so are names whose folder was not."""

    def __init__(self, at):
        super().__init__(at, self.cut)
        self.unsynced: set[Path] = set()
        self.undo: dict[Path, list] = {}

    def write(self, path, content):
        super().write(path, content)
        self.unsynced.add(path)

    def write_at(self, path, offset, content):
        super().write_at(path, offset, content)
        self.unsynced.add(path)

    def sync(self, path):
        super().sync(path)
        self.unsynced.discard(path)

    def sync_folder(self, path):
        super().sync_folder(path)
        self.undo.pop(path, None)

    def rename(self, old, new):
        before = new.read_bytes() if new.exists() else None
        content = old.read_bytes()
        super().rename(old, new)
        if old in self.unsynced:
            self.unsynced.discard(old)
            self.unsynced.add(new)
        self.undo.setdefault(new.parent, []).append((new, before, old, content))

    def cut(self):
        for path in self.unsynced:
            if path.exists():
                path.write_bytes(bytes(path.stat().st_size // 2))
        for names in self.undo.values():
            for new, before, old, content in reversed(names):
                if before is not None:
                    new.write_bytes(before)
                elif new.exists():
                    new.unlink()
                old.write_bytes(content)
        raise PowerCutError
