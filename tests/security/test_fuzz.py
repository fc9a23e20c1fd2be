"""A short walk of `make fuzz` through every parser that touches network or card."""

from pathlib import Path

import pytest
from fuzz import fuzz
from fuzz_targets import targets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def test_only_documented_errors_leave_the_parsers(folder: Path) -> None:
    chosen = targets(folder)
    assert len(chosen) > 30
    for target in chosen:
        # What a seed is must be known to its parser: at least one is taken.
        assert any(_is_taken(target.parse, target.errors, seed) for seed in target.seeds), target.name
        fuzz(target, examples=10)


def _is_taken(parse: object, errors: tuple[type[Exception], ...], seed: bytes) -> bool:
    try:
        parse(seed)  # type: ignore[operator]
    except errors:
        return False
    return True
