"""The frame of a console program: errors to exit codes, signals to a stop flag."""

import argparse
import difflib
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from edge_agent.console.exit_codes import ExitCode, UserError

OWN_PACKAGES = ("edge_agent", "coordinator", "trainer", "firmware_images")
EXTRAS = {"nonn-coordinator": "coordinator", "nonn-trainer": "trainer"}


def run_program(job: Callable[[], int]) -> int:
    """Run `job`; user errors become one line on stderr and their exit code, Ctrl-C becomes 130."""
    try:
        return job()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in OWN_PACKAGES:
            raise
        extra = EXTRAS.get(Path(sys.argv[0]).name, "agent")
        # No index has nonn-edge: who followed "pip install nonn-edge[...]" would get a stranger's package, or none.
        how = f"expected nonn-edge's extra {extra}: pip install '.[{extra}]' in a clone, or the wheel with [{extra}]"
        print(f"error: {missing} is not installed; {how}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); what is left to print goes nowhere.
        sys.stdout = None
        return ExitCode.OK
    except OSError as error:
        print(f"error: {error.filename or 'input/output'}: {error.strerror or error}", file=sys.stderr)
        return ExitCode.IO_ERROR


class ProgramParser(argparse.ArgumentParser):
    """An argument parser whose usage errors are one line and our exit code."""

    def __init__(self, prog: str = "", description: str | None = None, epilog: str | None = None, **more: Any) -> None:
        more.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        # Off: `--student 1` would pass for --students, and win over it.
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False, **more)

    def error(self, message: str) -> NoReturn:
        """Name the flag that may be meant, and the command whose help explains more."""
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        close = difflib.get_close_matches(unknown[1], _flags(self), 1) if unknown else []
        hint = f"; expected {close[0]}?" if close else ""
        self.exit(ExitCode.USAGE, f"error: {message}{hint}; see {self.prog} --help\n")


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    """All flags of a program, those of its commands too."""
    found: set[str] = set()
    for action in parser._actions:  # noqa: SLF001 (argparse tells them nowhere else)
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            found.update(flag for command in action.choices.values() for flag in _flags(command))
    return sorted(found)


class StopFlag:
    """Set by SIGTERM and SIGINT, so that a server's loop ends between two steps."""

    def __init__(self) -> None:
        self.stopped = False

    def listen(self) -> None:
        """Take over SIGTERM and SIGINT; a second one of them ends the program at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.stopped = True
        signal.signal(number, signal.SIG_DFL)
