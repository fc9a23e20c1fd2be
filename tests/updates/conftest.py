import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from leftovers import OPEN


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """A test that failed must not fail the next one by its frames."""
    yield
    while OPEN:
        OPEN.pop()()
