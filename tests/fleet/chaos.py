"""A healthy fleet of real programs under steady load, for faults to act on."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleet_processes import TINY, FleetProcesses
from load import Load
from mangling_proxy import ManglingProxy

from edge_agent.console.deployment_directory import open_deployment

PATIENCE_S = 90.0  # for a busy machine; the table says how long it took
STEADY_S = 3.0


@dataclass
class Outcome:
    """One row."""

    fault: str
    counts: Counter[str]
    recovered_s: float | None
    note: str = ""


class Chaos:
    """A fleet of three with pi-0 behind a proxy, its load, and what the faults did to it."""

    def __init__(self, folder: Path, messages: int) -> None:
        self.folder, self.messages = folder, messages
        self.fleet = FleetProcesses(folder)
        self.deployment = open_deployment(TINY)
        self.note = ""

    def start(self, students: tuple[str, ...] = ("0", "1", "2"), *coordinator_flags: str) -> None:
        """Broker, proxy, programs, load; until the first complete answers."""
        self.fleet.start_broker()
        self.proxy = ManglingProxy(self.fleet.port, seed=3)
        self.students = students
        for number in range(len(students)):
            self.start_agent(number)
        self.coordinator_flags = ("--journal", str(self.folder / "journal"), "--telemetry-s", "0.2", *coordinator_flags)
        self.fleet.start_coordinator(*self.coordinator_flags)
        shape = self.deployment.manifest.input
        self.load = Load(self.fleet.port, (shape.height, shape.width, shape.channels))
        if self.load.wait_until_complete(PATIENCE_S) is None:
            raise SystemExit(f"the fleet does not start; see {self.folder}")
        self.load.settle()

    def start_agent(self, number: int, *flags: str) -> None:
        """Start an agent; the first one behind the proxy."""
        port = self.proxy.port if number == 0 else None
        self.fleet.start_agent(f"pi-{number}", self.students[number], "--telemetry-s", "1", *flags, port=port)

    def stop(self) -> None:
        """End everything."""
        self.fleet.stop_all()
        self.proxy.close()

    def fault(self, name: str, act: Callable[["Chaos"], None]) -> Outcome:
        """Steady load, the fault, recovery; a row of the table."""
        self.note = ""
        began, lost = time.monotonic(), self.load.lost
        self.load.run(1.0)
        act(self)
        recovered = self.load.wait_until_complete(PATIENCE_S)
        self.load.settle()
        counts = self.load.count(began)
        counts["lost"] = max(0, self.load.lost - lost)
        counts["unopened"] = counts.pop("silent", 0) - counts["lost"]
        outcome = Outcome(name, counts, recovered, self.note)
        print(f"{name}: {dict(outcome.counts)}, recovered {recovered if recovered is None else round(recovered, 2)} s"
              f"{'; ' + self.note if self.note else ''}", file=sys.stderr, flush=True)  # fmt: skip
        return outcome

    def deaf(self, act: Callable[[], None]) -> None:
        """Do something that silences the coordinator, and note when answers come again."""
        began = time.monotonic()
        act()
        back = self.load.wait_until_complete(PATIENCE_S)
        self.note += "; " if self.note else ""
        self.note += f"answers again after {time.monotonic() - began:.1f} s" if back is not None else "never again"

    def end(self, name: str) -> None:
        """Ask a program to end, and wait for it."""
        program = self.fleet.running.pop(name)
        program.terminate()
        program.wait(20)

    def wait_online(self, device: str) -> None:
        """Until the device has published a birth, or patience ends."""
        topic = self.load.topics.node(device, "state")
        self.load.states.pop(topic, None)
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE_S:
            self.load.run(0.05)
            if b'"online"' in self.load.states.get(topic, b""):
                return

    def first_degraded(self, since: float) -> str:
        """How soon answers went on without the students that are gone."""
        answers = [sent.answers[0] for sent in self.load.frames.values() if sent.answers]
        degraded = [answer for answer in answers if answer[1].result == "degraded" and answer[0] > since]
        if not degraded:
            return "no degraded answer"
        longest = max(prediction.latency_ms.total for _, prediction in degraded)
        return f"first degraded answer after {degraded[0][0] - since:.2f} s, the slowest took {longest:.0f} ms"

    def availability(self) -> str:
        """Whether the retained states say of every device that it is there."""
        self.load.run(1.0)
        states = {topic.split("/")[-2]: b'"online"' in payload for topic, payload in self.load.states.items()}
        wrong = [f"pi-{n}" for n in range(len(self.students)) if not states.get(f"pi-{n}")]
        return f"; availability wrong for {', '.join(wrong)}" if wrong else "; availability right for all"
