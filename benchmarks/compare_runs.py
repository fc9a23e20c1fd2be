"""Finished runs of nonn-trainer side by side: what their students cost together, what they answer on the test images.

    python benchmarks/compare_runs.py RUN RUN ...

Reads run.json, evaluation.json and distill/ of each. Runs that differ in more than networks, K, name and failout are
refused: nothing else would explain the difference. Prints Markdown.
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
    print("| students | parameters, all | MACs, all | of one | validation | test | test, one missing | h |")
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
    return {
        "settings": json.loads((run / "run.json").read_text())["configuration"],
        "evaluation": json.loads((run / "evaluation.json").read_text()),
        "history": json.loads((run / "distill" / "history.json").read_text()),
    }


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    found, last = row["evaluation"], row["history"][-1]
    students = found["students"]
    networks = sorted({student["network"] for student in students})
    full, validation, hours = 2 ** len(students) - 1, 100 * last["val_accuracy"], last["seconds"] / 3600
    by_mask = found["precisions"][found["precision"]]["accuracy_by_mask"]
    missing = [by_mask[str(full - 2**k)] for k in range(len(students)) if len(students) > 1]
    shown = f"{100 * min(missing):.2f} to {100 * max(missing):.2f} %" if missing else "no answer"
    return (
        f"| {len(students)} x {', '.join(networks)} | {sum(s['parameters'] for s in students):,} | "
        f"{sum(s['macs'] for s in students) / 1e6:.1f} M | {max(s['macs'] for s in students) / 1e6:.1f} M | "
        f"{validation:.2f} % | {100 * found['accuracy']:.2f} % | {shown} | {hours:.2f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
