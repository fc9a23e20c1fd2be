"""What a failing test leaves running."""

from collections.abc import Callable

OPEN: list[Callable[[], None]] = []  # each ends something; called after every test
