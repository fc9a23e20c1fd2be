"""Exact training state on disk: weights, optimiser, step and history in one file, replaced whole."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.console.exit_codes import UserError
from trainer.npz_file import read_arrays, write_arrays


@dataclass
class TrainingState:
    """Where a training stands: steps done, and one entry of `history` per finished pass."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    running: dict[str, float] = field(default_factory=dict)  # sums over the present pass


def save_checkpoint(path: Path, variables: list[Any], state: TrainingState) -> None:
    """Write all variables (in the order given) and the state."""
    arrays = {f"v{number}": np.asarray(variable) for number, variable in enumerate(variables)}
    text = json.dumps(state.__dict__).encode()
    write_arrays(path, state=np.frombuffer(text, np.uint8), **arrays)


def restore_checkpoint(path: Path, variables: list[Any]) -> TrainingState:
    """Assign all variables; a fresh state if there is no checkpoint, UserError if it is of another network."""
    if not path.exists():
        return TrainingState()
    arrays = read_arrays(path)
    expected = {f"v{number}": tuple(variable.shape) for number, variable in enumerate(variables)}
    found = {name: array.shape for name, array in arrays.items() if name != "state"}
    if found != expected:
        raise UserError(f"{path}: checkpoint of another network; delete it to start over")
    for number, variable in enumerate(variables):
        variable.assign(arrays[f"v{number}"])
    return TrainingState(**json.loads(arrays["state"].tobytes()))
