"""Exit codes of all three programs, after sysexits.h where it has one that fits."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit status of a program means; docs/operations.md has the table for operators."""

    OK = 0
    FAILED = 1  # the job ran and its result is not what was asked for
    USAGE = 64  # unknown command or flag
    BAD_INPUT = 65  # a data set, image, run directory or deployment that can't be used
    UNAVAILABLE = 69  # a broker, port, device or optional package is missing
    INTERNAL = 70  # a fault of ours
    IO_ERROR = 74  # disk full, permission denied
    CONFIGURATION = 78  # settings; systemd does not restart on it
    INTERRUPTED = 130  # Ctrl-C


class UserError(Exception):
    """Trouble that the user can mend: one line saying what, where and what was expected."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code
