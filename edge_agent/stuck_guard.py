"""Restarts the agent when the interpreter hangs, which the loop itself cannot notice.

A thread of ours replaces the program (exec). Where the engine holds Python's lock while it hangs, that thread hangs
too; then faulthandler's C thread ends the program, and the supervisor (systemd) starts it again.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable

CHECKS_PER_LIMIT = 4
LAST_RESORT_LIMITS = 4  # stuck for so many limits: not even our thread runs
_log = logging.getLogger("agent")


class StuckGuard:
    """Watches one thing at a time: call `begin` before and `end` after it."""

    def __init__(self, limit_s: float, restart: Callable[[str], None] | None = None) -> None:
        self._limit_s = limit_s
        self._restart = restart or restart_program
        self._round = 0  # counts begins, so that a new run is told from the same one going on
        self._busy = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stuck-guard", daemon=True)

    def start(self) -> None:
        """Watch until `close`."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def begin(self) -> None:
        """The interpreter is called now."""
        self._round += 1
        self._busy = True

    def end(self) -> None:
        """It has come back."""
        self._busy = False

    def _watch(self) -> None:
        # Counts its own checks and not seconds: a suspended or stopped machine must not look like a stuck one.
        interval_s = self._limit_s / CHECKS_PER_LIMIT
        seen_round, checks = -1, 0
        while not self._closed.is_set():
            faulthandler.dump_traceback_later(LAST_RESORT_LIMITS * self._limit_s, exit=True)
            started = time.monotonic()
            if self._closed.wait(interval_s):
                return
            if not self._busy or self._round != seen_round:
                seen_round, checks = self._round, 0
            elif time.monotonic() - started < 2 * interval_s:
                checks += 1
            if checks >= CHECKS_PER_LIMIT:
                self._restart(f"interpreter stuck for {self._limit_s:g} s")
                checks = 0


def restart_program(reason: str) -> None:
    """Replace this program by a new start of itself; its sockets close, so the broker publishes the will."""
    _log.critical("%s: starting again", reason)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (our own command line)
