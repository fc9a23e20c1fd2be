import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "unit")]  # fleet and journeys; the file operations that fail

from fleet import OPEN  # noqa: E402 (beside this file)


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """A test that failed must not fail the next one by its frames."""
    yield
    while OPEN:
        OPEN.pop()()
