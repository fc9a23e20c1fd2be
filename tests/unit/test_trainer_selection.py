from pathlib import Path

import pytest

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.console.exit_codes import UserError
from trainer.selection import select_precisions

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"


def test_a_selection_is_a_whole_deployment(tmp_path):
    size_bytes = select_precisions(TINY, ["int8"], tmp_path / "small")
    chosen, whole = open_deployment(tmp_path / "small"), open_deployment(TINY)
    assert {a.precision for student in chosen.manifest.students for a in student.artifacts} == {"int8"}
    for entry in chosen.manifest.files():
        assert chosen.read(entry) == whole.read(entry)
    assert chosen.manifest.widths == whole.manifest.widths
    assert size_bytes == sum(file.stat().st_size for file in (tmp_path / "small").iterdir())


def test_what_is_not_there_or_in_the_way_is_named(tmp_path):
    with pytest.raises(UserError, match=r"student 0 has none of float128"):
        select_precisions(TINY, ["float128"], tmp_path / "small")
    with pytest.raises(UserError, match="exists already"):
        select_precisions(TINY, ["int8"], tmp_path)
    assert list(tmp_path.iterdir()) == []
