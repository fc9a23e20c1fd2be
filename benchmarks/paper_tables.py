"""The paper's tables beside ours: teacher and student on the same engine, one thread, one machine, in one run.

    python benchmarks/network_files.py --out build/paper-networks wrn-40-4=teacher.keras wrn-16-1:133 vgg19 vgg11:256
    python benchmarks/paper_tables.py --networks build/paper-networks [--engines litert|all] [--turn-ms 10]
        [--deployment docs/examples/cifar10-2x-wrn-16-1 --dataset cifar10.zip]

Every engine has a process of its own with one thread and batch 1; all take turns. Columns without a name of an engine
are LiteRT's; the last span is over all engines. With `--engines litert` this Python's interpreter does, which is all
that a Pi needs. Latency is CPU time, median: other programs' turns do not lengthen it. Energy is the machine's own
meter's, where it has one, else CPU time at --core-watts, and says which. With a deployment and a data set, every test
image goes to its students over MQTT, and to the teacher itself. Prints Markdown.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))
import paper
from engine_tables import Contender
from engine_turns import cpu_name, measure, start

from edge_agent.energy import board_name, core_watts

PC_CORE_WATTS = 10.0  # an assumption, about a server's core: it gives the millijoules a size and leaves the ratio alone
PAIRS = {"wrn": ("wrn-40-4", "wrn-16-1"), "vgg": ("vgg19", "vgg11")}
REASONS = {
    "accuracy, wrn": "20 passes of distillation instead of 200, from a teacher that is itself weaker",
    "parameters, wrn": "our students share all 256 filters of the teacher between them, the paper's leave most out, "
                       "so that its bridges are narrower",
    "parameters, vgg": "half of the 512 filters for each student: a bridge of 256, wider than the paper's",
    "memory": "a student can't shrink the interpreter, nor the activations of the first layers, which are as large as "
              "the teacher's",
    "latency": "a PC's caches hold what those of the paper's boards do not, where the bigger network loses more",
}  # fmt: skip


@dataclass(frozen=True)
class Accuracies:
    """Of one pair, in percent; how many images, and what the students' answers went through."""

    teacher: float
    students: float
    images: int
    lost: int
    repeated: int


@dataclass
class Pair:
    """A teacher and a student on every engine, LiteRT first."""

    key: str
    teachers: list[Contender]
    students: list[Contender]
    networks: tuple[dict, dict]
    core_watts: float
    accuracies: Accuracies | None = None

    def ratios(self, figure: str) -> list[float]:
        """Teacher to student, by engine."""
        return [
            self.value(t, figure) / self.value(s, figure) for t, s in zip(self.teachers, self.students, strict=True)
        ]

    def value(self, contender: Contender, figure: str) -> float:
        """One figure of one contender."""
        return {
            "latency": lambda: float(np.median(contender.cpu_us)) / 1e3,
            "energy": lambda: 1e3 * float(np.median(contender.joules)) if contender.joules
            else float(np.median(contender.cpu_us)) * self.core_watts / 1e3,
            "network memory": lambda: contender.network_rss_mb,
            "memory": lambda: contender.rss_mb,
            "file": lambda: contender.size_bytes,
        }[figure]()  # fmt: skip


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--engines", choices=("litert", "all"), default="litert")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--turn-ms", type=float, default=10, help="CPU time of an engine in a round; a meter wants more"
    )
    parser.add_argument("--core-watts", type=float, help="of a busy core, where there is no meter")
    parser.add_argument("--deployment", type=Path, metavar="DEPLOYMENT")
    parser.add_argument("--dataset", metavar="PATH")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/nonn-edge/engines")
    arguments = parser.parse_args()
    if (arguments.dataset is None) != (arguments.deployment is None):
        parser.error("expected --deployment and --dataset together")
    with tempfile.TemporaryDirectory() as folder:
        pairs = open_pairs(arguments, Path(folder))
        everyone = [contender for pair in pairs for contender in pair.teachers + pair.students]
        measure(everyone, arguments.rounds, arguments.turn_ms)
        for contender in everyone:
            if contender.worker:
                contender.worker.communicate(timeout=30)
    if arguments.dataset:
        pairs[0].accuracies = measure_accuracies(arguments, pairs[0])
    print_conditions(arguments, pairs)
    for pair in pairs:
        print_pair(pair)
    print_ratios(pairs)
    return 0


def open_pairs(arguments: argparse.Namespace, folder: Path) -> list[Pair]:
    """Start every engine on every network."""
    images = folder / "image.npy"
    np.save(images, np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8))
    networks = {network["name"]: network for network in json.loads((arguments.networks / "networks.json").read_text())}
    watts = arguments.core_watts or core_watts(board_name()) or PC_CORE_WATTS
    pairs = []
    for key, names in PAIRS.items():
        groups = [open_engines(arguments, name, folder) for name in names]
        for contender in groups[0] + groups[1]:
            start(contender, arguments.cache if arguments.engines == "all" else None, images)
        pairs.append(Pair(key, *groups, (networks[names[0]], networks[names[1]]), watts))
    return pairs


def open_engines(arguments: argparse.Namespace, name: str, folder: Path) -> list[Contender]:
    """LiteRT, and with `--engines all` every other one, for a float32 file."""
    file = arguments.networks / f"{name}.float32.tflite"
    if arguments.engines == "litert":
        return [Contender(name, "litert", "float32", file, file.stat().st_size)]
    from engines import contenders, light_runtime

    light_runtime(arguments.cache)
    return [contender for contender in contenders(name, file, folder) if contender.precision == "float32"]


def measure_accuracies(arguments: argparse.Namespace, pair: Pair) -> Accuracies:
    """Students over MQTT, the teacher in as many processes as there are cores; all test images each."""
    from over_mqtt import send_all
    from subsets import read_test_images

    from edge_agent.console.deployment_directory import open_deployment

    found, ended = send_all(arguments.deployment, "--dataset", arguments.dataset, "--window", "16")
    if ended:
        raise SystemExit(f"evaluate ended with {ended}")
    test = read_test_images(Path(arguments.dataset), open_deployment(arguments.deployment), found["frames"])
    teacher = teacher_accuracy(pair.teachers[0].file, test.images, test.labels)
    return Accuracies(teacher, 100 * found["accuracy"], found["frames"], found["lost"], found["repeated"])


def teacher_accuracy(file: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Percent of right answers, the images shared among the cores."""
    from trainer.litert_batches import features_of
    from trainer.worker_pool import map_in_workers

    cores = os.cpu_count() or 1
    shares = map_in_workers(features_of, [(file, share) for share in np.array_split(images, cores)], cores, True)
    answers = np.concatenate([share.real().argmax(axis=1) for share in shares])
    return 100 * float(np.mean(answers == labels))


def print_conditions(arguments: argparse.Namespace, pairs: list[Pair]) -> None:
    """What all tables have in common."""
    first = pairs[0].teachers[0]
    runs = ", ".join(
        f"{pair.networks[0]['name']} {len(pair.teachers[0].cpu_us)}, {pair.networks[1]['name']} "
        f"{len(pair.students[0].cpu_us)}" for pair in pairs
    )  # fmt: skip
    engines = ", ".join(contender.version for contender in pairs[0].teachers)
    untrained = ", ".join(network["name"] for pair in pairs for network in pair.networks if not network["trained"])
    energy = (
        f"measured by {first.meter}" if first.joules
        else f"**estimated**: CPU time at {pairs[0].core_watts:g} W for a busy core, so that its ratio is the latency's"
    )  # fmt: skip
    print(f"Here: {board_name() or cpu_name()}, one thread, batch 1, float32, {arguments.rounds} rounds in turns; runs "
          f"of each with LiteRT: {runs}. Engines: {engines}. Energy: {energy}. Untrained here, for their cost "
          f"only: {untrained}.")  # fmt: skip


def print_pair(pair: Pair) -> None:
    """One row of the paper."""
    row, (teacher, student) = paper.ROWS[pair.key], pair.networks
    print(f"\n**{row.networks[0]} to {row.networks[1]}**\n")
    print("| teacher -> student | paper, Pi 3B+ | its ratio | here, LiteRT | ratio | all engines |")
    print("|---|---|---|---|---|---|")
    lost = row.accuracy[1] - row.accuracy[0]
    ours = "not measured in this run | |" if teacher["trained"] else "not trained here | |"
    if pair.accuracies is not None:
        found = pair.accuracies
        ours = f"{found.teacher:.2f} -> {found.students:.2f} | {found.students - found.teacher:+.2f} |"
    print(f"| accuracy, % | {row.accuracy[0]:.2f} -> {row.accuracy[1]:.2f} | {lost:+.2f} | {ours} |")
    print(f"| parameters | {row.parameters[0] / 1e6:g} M -> {row.parameters[1] / 1e6:g} M | {row.parameters_ratio}x "
          f"| {teacher['parameters']:,} -> {student['parameters']:,} "
          f"| {teacher['parameters'] / student['parameters']:.2f}x | |")  # fmt: skip
    print(f"| multiply-accumulates | | | {teacher['macs'] / 1e6:,.1f} M -> {student['macs'] / 1e6:,.1f} M "
          f"| {teacher['macs'] / student['macs']:.2f}x | |")  # fmt: skip
    figures = (
        ("latency of an image, ms", "latency", row.latency_ms, row.latency_ratio, ".2f"),
        ("energy of an image, mJ", "energy", row.energy_mj, row.energy_ratio, ".2f"),
        ("peak memory beyond the interpreter's, MB", "network memory", None, None, ".1f"),
        ("peak memory of the process, MB", "memory", None, None, ".1f"),
        ("artifact, bytes", "file", None, None, ",.0f"),
    )
    for title, figure, published, ratio, form in figures:
        theirs = "| |" if published is None else f"{published[0]:g} -> {published[1]:g} | {ratio}x |"
        before, after = (pair.value(group[0], figure) for group in (pair.teachers, pair.students))
        print(
            f"| {title} | {theirs} {before:{form}} -> {after:{form}} | {shown(pair, figure)} | {span(pair, figure)} |"
        )
    if found := pair.accuracies:
        print(f"\nAccuracy: {found.images:,} test images; two students, each answer over MQTT, {found.lost} lost, "
              f"{found.repeated} repeated; the teacher by its float32 TFLite file.")  # fmt: skip


def shown(pair: Pair, figure: str) -> str:
    """LiteRT's ratio."""
    mark = " *estimated*" if figure == "energy" and not pair.teachers[0].joules else ""
    return f"{pair.ratios(figure)[0]:.2f}x{mark}"


def span(pair: Pair, figure: str) -> str:
    """Smallest and largest ratio of all engines."""
    found = pair.ratios(figure)
    return f"{min(found):.2f} to {max(found):.2f}" if len(found) > 1 else "one engine"


def print_ratios(pairs: list[Pair]) -> None:
    """Each ratio of the paper with ours, and a sentence where ours is lower."""
    print("\n**The paper's ratios**\n\n| paper | of | ours, LiteRT | | why |\n|---|---|---|---|---|")
    by_key = {pair.key: pair for pair in pairs}
    for key, pair in by_key.items():
        row = paper.ROWS[key]
        name = " to ".join(row.networks)
        if pair.accuracies is not None:
            loss = pair.accuracies.students - pair.accuracies.teacher
            theirs = row.accuracy[1] - row.accuracy[0]
            _ratio(f"{theirs:+.2f}", f"points of accuracy, {name}", f"{loss:+.2f}", loss < theirs, f"accuracy, {key}")
        parameters = pair.networks[0]["parameters"] / pair.networks[1]["parameters"]
        lower = parameters < row.parameters_ratio
        _ratio(f"{row.parameters_ratio}x", f"parameters, {name}", f"{parameters:.2f}x", lower, f"parameters, {key}")
        for figure, ratio in (("latency", row.latency_ratio), ("energy", row.energy_ratio)):
            lower = pair.ratios(figure)[0] < ratio
            _ratio(f"{ratio}x", f"{figure}, {name}", shown(pair, figure), lower, "latency")
    first = pairs[0]
    for figure, what in (("file", "bytes of the artifact"), ("network memory", "peak beyond the interpreter's"),
                         ("memory", "peak of the process")):  # fmt: skip
        lower = first.ratios(figure)[0] < paper.ABSTRACT["memory"]
        reason = "parameters, wrn" if figure == "file" else "memory"
        _ratio(f"{paper.ABSTRACT['memory']}x", f"memory (abstract): {what}", shown(first, figure), lower, reason)
    for figure in ("latency", "energy"):
        lower = first.ratios(figure)[0] < paper.ABSTRACT[figure]
        _ratio(f"{paper.ABSTRACT[figure]}x", f"{figure} (abstract)", shown(first, figure), lower, "latency")


def _ratio(theirs: str, what: str, ours: str, lower: bool, reason: str) -> None:
    print(f"| {theirs} | {what} | {ours} | {'**lower**' if lower else 'higher'} | {REASONS[reason] if lower else ''} |")


if __name__ == "__main__":
    sys.exit(main())
