"""Runs of nonn-trainer side by side: what their students cost together, what they answer.

    python benchmarks/compare_runs.py RUN RUN ...

Reads run.json, distill/, export/ and, where there is one, evaluation.json of each. Runs that differ in more than
networks, K, name and failout are refused: nothing else would explain the difference. Prints Markdown.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

MAY_DIFFER = {"student", "students", "failout", "name", "version", "precisions", "tvm"}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    arguments = parser.parse_args()
    rows = [read(run) for run in arguments.runs]
    first = rows[0]
    for path, row in zip(arguments.runs, rows, strict=True):
        different = {key for key, value in row["settings"].items() if value != first["settings"].get(key)}
        if different - MAY_DIFFER:
            names = ", ".join(sorted(different - MAY_DIFFER))
            print(f"error: {path} differs from {arguments.runs[0]} in {names}", file=sys.stderr)
            return 64
    print("| students | parameters, all | MACs, all | of one | validation | one missing (zeros) | test | h |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(line(row))
    settings = first["settings"]
    print(
        f"\n{settings['passes']} passes ({settings['small_passes']} of them at 3/4 size), batch {settings['batch']}, "
        f"{settings['views']} views, the same teacher, its cached outputs and seed "
        f"{settings['seed']} for all; n = 1 each. h: wall clock of the distillation."
    )
    return 0


def read(run: Path) -> dict[str, Any]:
    """What one run says of itself."""
    evaluation = run / "evaluation.json"
    return {
        "settings": json.loads((run / "run.json").read_text())["configuration"],
        "students": json.loads((run / "export" / "manifest.json").read_text())["students"],
        "last": json.loads((run / "distill" / "history.json").read_text())[-1],
        "test": json.loads(evaluation.read_text())["accuracy"] if evaluation.exists() else None,
    }


def line(row: dict[str, Any]) -> str:
    """One row of the table; accuracies of the joint float32 network, of the artifacts for test images."""
    students, last = row["students"], row["last"]
    networks = ", ".join(sorted({student["network"] for student in students}))
    missing = [value for name, value in last.items() if name.startswith("val_accuracy_without_")]
    cells = [
        f"{len(students)} x {networks}",
        f"{sum(student['parameters'] for student in students):,}",
        f"{sum(student['macs'] for student in students) / 1e6:.1f} M",
        f"{max(student['macs'] for student in students) / 1e6:.1f} M",
        f"{100 * last['val_accuracy']:.2f} %",
        f"{100 * min(missing):.2f} to {100 * max(missing):.2f} %" if len(students) > 1 else "no answer",
        f"{100 * row['test']:.2f} %" if row["test"] is not None else "-",
        f"{last['seconds'] / 3600:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
