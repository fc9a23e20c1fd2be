"""A thread for what may take long (disk, hashes, loading), so that the loop goes on answering frames."""

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

Job = Callable[[], Any]
Done = Callable[[Any], None]


class Worker:
    """Does one job after the other. Results come back in the loop's thread, when it calls `deliver`."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Job, Done] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Done, Any]] = queue.SimpleQueue()
        self._pending = 0
        self.ready_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # readable while a result waits
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Jobs that were submitted and not yet delivered."""
        return self._pending

    def submit(self, job: Job, done: Done) -> None:
        """Run `job` in the thread, then `done` with its result, or its exception, in the loop."""
        self._pending += 1
        self._jobs.put((job, done))

    def deliver(self) -> None:
        """Call `done` of every job that has ended."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.ready_fd)
        while True:
            try:
                done, result = self._results.get_nowait()
            except queue.Empty:
                return
            self._pending -= 1
            done(result)

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                result = job()
            except Exception as error:  # noqa: BLE001 (handed over to the loop, which knows what it means)
                result = error
            self._results.put((done, result))
            os.eventfd_write(self.ready_fd, 1)
