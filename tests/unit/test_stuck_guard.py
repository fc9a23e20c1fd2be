"""A hanging interpreter starts the program again; a working one never does."""

import subprocess
import sys
import time

from edge_agent.stuck_guard import CHECKS_PER_LIMIT, StuckGuard

PROGRAM = """
import ctypes, os, sys
from edge_agent.stuck_guard import StuckGuard
if os.environ.get("STARTED"):
    print("again", flush=True)
    sys.exit(0)
os.environ["STARTED"] = "1"
guard = StuckGuard(0.4)
guard.start()
guard.begin()
ctypes.{library}(None).pause()  # hangs in C, as an interpreter would; PyDLL keeps Python's lock, CDLL gives it back
"""


def run(library: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.format(library=library)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_stuck_interpreter_starts_the_program_again() -> None:
    ended = run("CDLL")
    assert (ended.returncode, ended.stdout) == (0, "again\n"), ended.stderr


def test_one_that_holds_pythons_lock_ends_the_program_for_its_supervisor() -> None:
    ended = run("PyDLL")
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr


def test_runs_that_end_in_time_are_left_alone() -> None:
    reasons: list[str] = []
    guard = StuckGuard(0.2, reasons.append)
    guard.start()
    for _ in range(4 * CHECKS_PER_LIMIT):
        guard.begin()
        time.sleep(0.03)
        guard.end()
    guard.close()
    assert reasons == []
