"""Accuracies of a run, from evaluation.json or, before that, from the validation split."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PrecisionScore:
    """All students at one precision; bytes per student."""

    precision: str
    accuracy: float
    artifact_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Shares 0..1; `subsets` by the students that are present."""

    split: str
    teacher: float | None = None
    students: float | None = None
    subsets: dict[tuple[int, ...], float] = field(default_factory=dict)
    zeros: bool = False  # missing students were zeros: no heads of their own yet
    precisions: tuple[PrecisionScore, ...] = ()


def validation_scores(teacher: Any, last_pass: dict[str, float]) -> Scores:
    """From the activations stage and the last pass of distillation; missing students count as zeros there."""
    students = _share(last_pass.get("val_accuracy"))
    subsets: dict[tuple[int, ...], float] = {}
    without = {
        int(key.rsplit("_", 1)[1]): float(value)
        for key, value in last_pass.items()
        if key.startswith("val_accuracy_without_")
    }
    everyone = range(len(without))
    if students is not None and without:
        subsets[tuple(everyone)] = students
        for missing, accuracy in without.items():
            subsets[tuple(s for s in everyone if s != missing)] = accuracy
    return Scores("validation split", _share(teacher), students, subsets, zeros=True)


def _share(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def evaluated_scores(evaluation: dict[str, Any]) -> Scores:
    """From evaluation.json; masks have bit i set where student i is present.

    >>> row = {"accuracy": 0.9, "accuracy_by_mask": {"1": 0.7, "3": 0.9}, "artifact_bytes": [10, 20]}
    >>> evaluated_scores({"accuracy": 0.9, "precision": "int8", "precisions": {"int8": row}}).subsets
    {(0,): 0.7, (0, 1): 0.9}
    """
    rows = evaluation.get("precisions", {})
    by_mask = rows.get(evaluation.get("precision"), {}).get("accuracy_by_mask", {})
    return Scores(
        f"{evaluation.get('test_images', '')} test images".strip(),
        _share(evaluation.get("teacher_accuracy")),
        _share(evaluation.get("accuracy")),
        {_present(int(mask)): float(accuracy) for mask, accuracy in by_mask.items()},
        precisions=tuple(
            PrecisionScore(name, float(row["accuracy"]), tuple(row["artifact_bytes"])) for name, row in rows.items()
        ),
    )


def _present(mask: int) -> tuple[int, ...]:
    return tuple(student for student in range(mask.bit_length()) if mask >> student & 1)
