"""Goals of ours and figures of the paper, each beside what was recorded: nothing here is a measured number."""

from dataclasses import dataclass
from pathlib import Path

from record_figures import Figure

PAPER_TABLES, RATIOS = "paper-tables", "ours"
EXAMPLE = "cifar10-2x-wrn-16-1"


@dataclass(frozen=True)
class Goal:
    """`limit`: a number or a recorded figure; `ours` must be at least that, or at most.

    `section`: heading of docs/results.md as a link's anchor. `because`: said where it is missed.
    """

    what: str
    limit: float | Figure
    ours: Figure
    section: str
    is_most: bool = False
    unit: str = ""
    whose: str = "goal"
    because: str = ""

    def row(self, records: Path) -> tuple[str, bool | None]:
        """A line of the table, and whether the goal was met; None: not measured."""
        name = f"[{self.what}](#{self.section})"
        limit = self.limit if isinstance(self.limit, float | int) else self.limit.number(records)
        ours = self.ours.number(records)
        word = "paper" if self.whose == "paper" else "at most" if self.is_most else "at least"
        wanted = "" if limit is None else f"{word} {limit:g}{self.unit}"
        if ours is None or limit is None:
            return f"| {name} | {wanted} | not measured yet | |", None
        met = ours <= limit if self.is_most else ours >= limit
        mark = " *estimated*" if "estimated" in (self.ours.text(records) or "") else ""
        good, bad = ("higher", "lower") if self.whose == "paper" else ("met", "missed")
        return f"| {name} | {wanted} | {ours:g}{self.unit}{mark} | {good if met else f'**{bad}**'} |", met

    def sentence(self, records: Path) -> str:
        """What is said of a missed one."""
        limit = self.limit if isinstance(self.limit, float | int) else self.limit.number(records)
        ours = self.ours.number(records)
        return f"- {self.what}: {ours:g}{self.unit}, {self.whose} {limit:g}{self.unit}. {self.because}".rstrip()


def _paper(what: str, limit: float, row: str, unit: str = "x", because: str = "") -> Goal:
    return Goal(what, limit, Figure(PAPER_TABLES, row, RATIOS), "the-papers-tables", unit=unit, whose="paper",
                because=because)  # fmt: skip


SHARED = "Our students share all filters of the teacher between them; the paper's leave most of them out."
OTHER = "from-the-best-teacher-at-hand"
SPLIT = "many-devices-against-one"
WITHOUT = "answers-with-students-missing"
WIRE = "bytes-on-the-wire-against-accuracy"
PARTITION = "partition-do-communities-win"
TVM = r" \| tvm.*?float32 \|(?: [\d.]+ \|){3} ([\d.]+)"
GOALS = (
    _paper("accuracy of students beside their teacher's, points", -0.86, "-0.86 | points", "",
           "Twenty passes instead of 200, from a teacher that is itself weaker."),
    _paper("parameters, WRN-40-4 to WRN-16-1", 49.89, "49.89x", because=SHARED),
    _paper("latency, WRN-40-4 to WRN-16-1", 12.44, "12.44x"),
    _paper("energy, WRN-40-4 to WRN-16-1", 14.36, "14.36x"),
    _paper("memory (abstract), bytes of the artifact", 50, "50x | memory (abstract): bytes", because=SHARED),
    _paper("memory (abstract), peak beyond the interpreter's", 50, "50x | memory (abstract): peak beyond",
           because="Activations of the first layers are as large in a student as in its teacher."),
    _paper("latency (abstract), one device", 33, "33x"),
    Goal("latency (abstract), frame to answer of two devices", 33,
         Figure("model-parallel", "teacher in one", "of the first"), SPLIT, unit="x", whose="paper",
         because="The way over MQTT and the wake-ups of four programs do not shrink with the network."),
    _paper("parameters, VGG-19 to VGG-11, untrained", 2.16, "2.16x",
           because="Each student has a bridge for half of the 512 filters."),
    _paper("latency, VGG-19 to VGG-11, untrained", 2.04, "2.04x"),
    _paper("energy, VGG-19 to VGG-11, untrained", 1.2, "1.2x"),
    Goal("time of the teacher split by layers, best cut, to two students'", 1,
         Figure("model-parallel", r"^Best cut: ([\d.]+)x"), SPLIT, unit="x"),
    Goal("accuracy of the best teacher at hand, %", 94, Figure("run-cifar10-airbench-k2", "accuracy", "teacher"), OTHER,
         because="Twenty passes, 13 of them at 24 pixels, are too few for it."),
    Goal("accuracy of its students beside it, points", -1,
         Figure("run-cifar10-airbench-k2", "accuracy", "ratio"), OTHER,
         because="Their passes limit them; a recipe for more is there."),
    Goal("accuracy with the more useful student missing, %", 85,
         Figure("subsets", rf"^{EXAMPLE}: worst with one student missing ([\d.]+) %"), WITHOUT),
    Goal("test images lost over MQTT", 0, Figure("over-mqtt", "10,000", "lost"), "through-mqtt", True),
    Goal("answers over MQTT unlike those offline", 0, Figure("over-mqtt", "10,000", "differ"), "through-mqtt", True),
    Goal("points that 4-bit features lose, version 2", 0.1,
         Figure("feature-bytes", r"as shipped\*\*: int4 .*? ([+-][\d.]+) \|"), WIRE, True),
    Goal("TVM's time to LiteRT's, WRN-16-1 float32", 1, Figure("engines", r"^\| wrn-16-1" + TVM), "engines", True, "x"),
    Goal("TVM's time to LiteRT's, VGG-11 float32", 1, Figure("engines", r"^\| vgg-11" + TVM), "engines", True, "x",
         because="Which is faster depends on the processor; an agent times both and keeps the faster."),
    Goal("agent: start to first answer, s", 1.5, Figure("agent-footprint", "ai-edge-litert", "start"), "engines", True),
    Goal("agent: peak memory, MB", 70, Figure("agent-footprint", "ai-edge-litert", "peak RSS"), "engines", True),
    Goal("accuracy of communities, against random sets, %", Figure("partition-ablation", "random", "accuracy"),
         Figure("partition-ablation", "communities | 0.1", "accuracy"), PARTITION,
         because="Within a deviation with all students there; with one missing they are worse."),
    Goal("frames lost in all faults", 0, Figure("faults", "**all**", "lost"), "faults", True),
    Goal("growth of memory in a soak, MB/hour", 1, Figure("soak", r"grows by at most (-?[\d.]+) MB"), "faults", True),
    Goal("p99 during an update, to before", 2, Figure("update", "p99 during / before", "median"), "updates", True, "x"),
    Goal("update, deploy to final, s", 10, Figure("update", "deploy to final", "median"), "updates", True),
    Goal("answers lost in updates", 0, Figure("update", "lost", "median"), "updates", True),
    Goal("latency to bare clients', K = 2", 1.5, Figure("fleet-latency", "2 |", "ratio"), "scale", True, "x"),
    Goal("capacity of a coordinator to a counting subscriber, %", 60,
         Figure("fleet-capacity", r"(\d+) % \(goal 60 %\)"), "scale"),
    *(Goal(f"throughput of a fleet to bare loops, {network}, %", 70,
           Figure("fleet-throughput", rf"\({network}\).*?(\d+) % \(goal 70 %\)"), "scale",
           because="The rest is broker, coordinator and sender, on the same two cores as the students.")
      for network in ("wrn-16-1", "wrn-16-2", "wrn-22-2")),
)  # fmt: skip


def summary(records: Path) -> str:
    """The table, then a sentence for each that was missed."""
    rows = [(goal, *goal.row(records)) for goal in GOALS]
    lines = ["| | paper, or our goal | ours | |", "|---|---|---|---|", *(line for _, line, _ in rows)]
    missed = [goal.sentence(records) for goal, _, met in rows if met is False]
    open_rows = sum(met is None for _, _, met in rows)
    count = f"{sum(met is True for _, _, met in rows)} met or higher, {len(missed)} missed or lower"
    count += f", {open_rows} not measured yet." if open_rows else "."
    return "\n".join([*lines, "", f"{count} These are missed or lower:" if missed else count, "", *missed]).strip()


def readme_table(records: Path) -> str:
    """The table of README.md."""

    def cell(record: str, row: str, column: str) -> str:
        return Figure(record, row, column).text(records) or "not measured yet"

    def pair(row: str) -> tuple[str, str, str]:
        before, _, after = cell(PAPER_TABLES, row, "here").partition(" -> ")
        return before, after, cell(PAPER_TABLES, row, "ratio")

    accuracy, parameters, macs, latency = map(
        pair, ("accuracy, %", "parameters", "multiply-accumulates", "latency of an image, ms")
    )
    without = [cell("subsets", f"{EXAMPLE} | {there} |", "accuracy") for there in (1, 0)]
    features = [cell("model-costs", f"{EXAMPLE} | student-{index}", "features back") for index in (0, 1)]
    sent = cell("model-costs", f"{EXAMPLE} | student-0", "frame to it")
    teacher_ms, students_ms = (cell("model-parallel", row, "p50") for row in ("teacher in one", "2 students in 2"))
    times = cell("model-parallel", "teacher in one", "of the first")
    frames, *counts = (cell("over-mqtt", "10,000", column) for column in ("frames", "lost", "repeated", "differ"))
    return "\n".join([
        "| | teacher WRN-40-4 | each device, WRN-16-1 int8 | |",
        "|---|---|---|---|",
        f"| accuracy | {accuracy[0]} % | {accuracy[1]} %, and {' or '.join(without)} with one student missing | |",
        f"| parameters | {parameters[0]} | {parameters[1]} | {parameters[2]} fewer |",
        f"| multiply-adds for one image | {macs[0]} | {macs[1]} | {macs[2]} fewer |",
        (f"| CPU time for one image on a PC, float32, same engine | {latency[0]} ms | {latency[1]} ms "
         f"| [{latency[2]} less](docs/results.md#the-papers-tables) |"),
        (f"| frame to answer over MQTT on a PC, float32 | {teacher_ms} ms | {students_ms} ms, two devices "
         f"| [{times} sooner](docs/results.md#many-devices-against-one) |"),
        f"| bytes on the wire for one image | | {sent} to the device, {' or '.join(features)} back | |",
        f"| frames lost, repeated or different from offline | | {', '.join(counts)} of {frames} | |",
    ])  # fmt: skip
