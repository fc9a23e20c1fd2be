"""What each shipped deployment costs a device: frozen, so that no change makes one dearer unseen.

`python benchmarks/model_costs.py --golden` writes model_costs.json anew, for a deployment that changed on purpose.
"""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from model_costs import DEPLOYMENTS, GOLDEN, ROOT, costs, table


@pytest.mark.parametrize("folder", DEPLOYMENTS, ids=lambda path: path.name)
def test_a_shipped_deployment_costs_what_it_did(folder: Path) -> None:
    assert costs(folder) == json.loads(GOLDEN.read_text())[folder.name]


def test_every_row_is_of_a_deployment_that_is_shipped() -> None:
    assert sorted(json.loads(GOLDEN.read_text())) == [path.name for path in DEPLOYMENTS]


def test_the_table_in_the_documents_is_the_golden_one() -> None:
    record = json.loads((ROOT / "benchmarks" / "records" / "model-costs.json").read_text())
    assert record["output"] == table(json.loads(GOLDEN.read_text()))
