"""Do communities beat random and contiguous partitions? The same teacher outputs, students and passes, several seeds.

    python benchmarks/partition_ablation.py BASE --out runs/ablation --student wrn-10-1 --seeds 3 --passes 4

BASE is a run whose stage `activations` is finished; its data set, teacher and views serve all. One more row trains
communities without failout: what zeros in place of a missing student cost a head that never met them. Accuracy is that
of the joint float32 network on the validation split; a missing student's features are zero, no head is refitted. Every
training is a run directory of its own: interrupted, the same command goes on. --json writes the table to a file.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from trainer.partition import METHODS

BASE_KEYS = (
    "dataset",
    "teacher",
    "lconv",
    "split_seed",
    "view_seed",
    "image_size",
    "views",
    "crop_pad",
    "flip",
    "teacher_engine",
)


@dataclass(frozen=True)
class Trial:
    """One training."""

    method: str
    failout: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its run directory."""
        return f"{self.method}-failout{self.failout:g}-seed{self.seed}"


def main() -> int:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, metavar="BASE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--student", default="wrn-10-1", metavar="NAME")
    parser.add_argument("--students", type=int, default=2, metavar="K")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--seeds-without-failout", type=int, default=1, metavar="N")
    parser.add_argument("--passes", type=int, default=4, metavar="N")
    parser.add_argument("--small-passes", type=int, default=0, metavar="N")
    parser.add_argument("--batch", type=int, default=64, metavar="N")
    parser.add_argument("--rate", type=float, default=0.07, metavar="X")
    parser.add_argument("--failout", type=float, default=0.1, metavar="P")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    kinds = [(method, arguments.failout) for method in METHODS]
    # Seed by seed, so that a table cut short compares like with like.
    trials = [Trial(method, failout, seed) for seed in range(arguments.seeds) for method, failout in kinds]
    kinds.append(("communities", 0.0))
    trials += [Trial("communities", 0.0, seed) for seed in range(arguments.seeds_without_failout)]
    results = {trial: run_trial(trial, arguments) for trial in trials}
    rows = [row(kind, results) for kind in kinds]
    print_table(rows, arguments)
    if arguments.json:
        settings = {key: str(value) for key, value in vars(arguments).items() if key not in ("json", "out", "base")}
        arguments.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")
    return 0


def run_trial(trial: Trial, arguments: argparse.Namespace) -> dict[str, float]:
    """Train, or read what is there; returns the last validation."""
    folder = arguments.out / trial.name
    finished = folder / "distill" / "stage.json"
    if not finished.exists():
        base = json.loads((arguments.base / "run.json").read_text())["configuration"]
        settings = {key: base.get(key) for key in BASE_KEYS if base.get(key) is not None}
        settings |= {
            "student": arguments.student, "students": arguments.students, "partition": trial.method, "seed": trial.seed,
            "failout": trial.failout, "passes": arguments.passes, "small_passes": arguments.small_passes,
            "batch": arguments.batch, "rate": arguments.rate,
        }  # fmt: skip
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
        for stage in ("teacher", "activations", "partition", "distill"):
            command = [sys.executable, "-m", "trainer.cli", stage, "--out", str(folder), "--reuse", str(arguments.base)]
            subprocess.run([*command, *flags], check=True)
    found: dict[str, float] = json.loads(finished.read_text())["results"]
    return found


def row(kind: tuple[str, float], results: dict[Trial, dict[str, float]]) -> dict[str, object]:
    """Mean and deviation over the seeds."""
    mine = [found for trial, found in results.items() if (trial.method, trial.failout) == kind]
    whole = [found["val_accuracy"] for found in mine]
    missing = [
        statistics.mean(value for name, value in found.items() if name.startswith("val_accuracy_without"))
        for found in mine
    ]
    transfer = [found["transfer_loss"] for found in mine]
    return {"partition": kind[0], "failout": kind[1], "seeds": len(mine)} | {
        name: {"mean": statistics.mean(values), "deviation": statistics.stdev(values) if len(values) > 1 else None}
        for name, values in (("accuracy", whole), ("one_missing", missing), ("transfer_loss", transfer))
    }


def print_table(rows: list[dict[str, object]], arguments: argparse.Namespace) -> None:
    """One line per kind, as Markdown."""
    passes = f"{arguments.passes} passes ({arguments.small_passes} at 3/4 size)"
    print(f"\n{arguments.students} x {arguments.student}, {passes}\n")
    print("| partition | failout | seeds | accuracy, % | one student missing (zeros), % | transfer loss |")
    print("|---|---|---|---|---|---|")
    for entry in rows:
        shown = [
            spread(entry[name], scale)
            for name, scale in (("accuracy", 100), ("one_missing", 100), ("transfer_loss", 1))
        ]
        print(f"| {entry['partition']} | {entry['failout']} | {entry['seeds']} | {' | '.join(shown)} |")


def spread(entry: object, scale: float) -> str:
    """`mean +- deviation`."""
    assert isinstance(entry, dict)
    deviation = entry["deviation"]
    tail = "" if deviation is None else f" ± {scale * deviation:.3g}"
    return f"{scale * entry['mean']:.4g}{tail}"


if __name__ == "__main__":
    sys.exit(main())
