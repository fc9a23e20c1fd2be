"""Progress bars on a terminal; nothing where nobody looks."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, str], None]


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Advance]:
    """Yield advance(count, text): a rich bar if stderr is a terminal, else silence."""
    if not sys.stderr.isatty():
        yield lambda _count, _text="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total, text="")
        yield lambda count, text="": bars.update(task, advance=count, text=text)


def say(line: str) -> None:
    """One line for the user or the log file; stdout is kept for results."""
    print(line, file=sys.stderr, flush=True)
