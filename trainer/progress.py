"""Progress bars on a terminal; nothing where nobody looks."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Moves a bar on; `text` stands behind it."""

    def __call__(self, count: int, text: str = "") -> None:
        """Advance by `count`."""


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Advance]:
    """Yield advance(count, text): a rich bar if stderr is a terminal, else silence."""
    if not sys.stderr.isatty():
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total, text="")

        def advance(count: int, text: str = "") -> None:
            bars.update(task, advance=count, text=text)

        yield advance


def _nothing(count: int, text: str = "") -> None:
    del count, text


def say(line: str) -> None:
    """One line for the user or the log file; stdout is kept for results."""
    print(line, file=sys.stderr, flush=True)
