"""Exit codes, one-line errors, rate-limited logs, files that are old or new and nothing between."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.log import LimitedLog, start_logging
from edge_agent.console.program import ProgramParser, StopFlag, run_program

# Ends itself with SIGKILL before the given line event of atomic_file.py: a power cut at any point of the writing.
KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from edge_agent.console import atomic_file
path, stop, content = Path(sys.argv[1]), int(sys.argv[2]), b"new" * 5000
seen = 0
def trace(frame, event, argument):
    global seen
    if frame.f_code.co_filename != atomic_file.__file__:
        return None
    if event == "line":
        seen += 1
        if seen == stop:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
sys.settrace(trace)
atomic_file.write_atomically(path, content)
"""


def test_a_kill_at_any_line_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    contents = []
    for stop in range(1, 100):
        path.write_bytes(b"old")
        child = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path), str(stop)], timeout=60)
        contents.append(path.read_bytes())
        assert contents[-1] in (b"old", b"new" * 5000)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
    assert contents[0] == b"old"
    assert contents[-1] == b"new" * 5000
    assert len(contents) > 10, "the writer was killed at many points"
    leftovers = [name.name for name in tmp_path.iterdir() if name != path]
    assert all(name.startswith(".file.bin.") and name.endswith(".part") for name in leftovers)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, b"old", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_exit_codes_are_the_documented_ones() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0, "FAILED": 1, "USAGE": 64, "BAD_INPUT": 65, "UNAVAILABLE": 69, "INTERNAL": 70, "IO_ERROR": 74,
        "CONFIGURATION": 78, "INTERRUPTED": 130,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("x.png: not an image"), 65, "error: x.png: not an image\n"),
        (UserError("port: 0", ExitCode.CONFIGURATION), 78, "error: port: 0\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (PermissionError(13, "Permission denied", "/root/x"), 74, "error: /root/x: Permission denied\n"),
        (OSError(28, "No space left on device"), 74, "error: input/output: No space left on device\n"),
    ],
)
def test_errors_are_one_line_and_their_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    def job() -> int:
        raise error

    assert run_program(job) == code
    assert capsys.readouterr().err == line


def test_a_fault_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_program(lambda: 1 // 0)


def test_usage_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ProgramParser("nonn-x")
    parser.add_argument("--number", type=int)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--number", "x"])
    assert caught.value.code == 64
    assert capsys.readouterr().err == "error: argument --number: invalid int value: 'x'; see nonn-x --help\n"


def test_the_stop_flag_takes_one_signal_and_lets_the_second_through() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        flag = StopFlag()
        flag.listen()
        assert not flag.stopped
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.stopped
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_one_line_a_kind_and_period_with_the_count_of_the_rest(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    limited = LimitedLog(logging.getLogger("limited"), period_s=60, clock=clock)
    for _ in range(100):
        limited.warn("a", "a is bad")
    limited.warn("b", "b is bad")
    assert caplog.messages == ["a is bad", "b is bad"]
    clock.now = 60.0
    limited.warn("a", "a again")
    assert caplog.messages[-1] == "a again (99 more like it since)"


def test_a_flood_of_kinds_fills_neither_log_nor_memory(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    limited = LimitedLog(logging.getLogger("limited"), period_s=60, max_kinds=16, clock=clock)
    for number in range(5000):
        limited.warn(f"sender-{number}", f"bad {number}")
    assert len(caplog.messages) == 17
    assert len(limited._last) == 17
    clock.now = 61.0
    limited.warn("sender-new", "after the flood")
    assert caplog.messages[-1] == "after the flood"
    assert len(limited._last) == 1


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        start_logging("json", "info")
        logging.getLogger("agent").warning("two\nlines, %s", "ä")
        logging.getLogger("agent").debug("not shown")
        (line,) = capsys.readouterr().err.splitlines()
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "agent", "two\nlines, ä")
