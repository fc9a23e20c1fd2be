"""The chaos suite: real programs, a real broker, one fault after the other. Writes the table of docs/reliability.md.

    python tests/fleet/faults.py [--out docs/reliability.md] [--messages 10000] [--only NAME ...]

Fails if a frame that the coordinator opened got no answer or two, or if the fleet was not whole again.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2] / "benchmarks")]
import flood  # noqa: E402
from fleet_processes import REPOSITORY, TINY, FleetProcesses  # noqa: E402
from load import Load  # noqa: E402
from mangling_proxy import Harm, ManglingProxy  # noqa: E402

from edge_agent.console.atomic_file import write_atomically  # noqa: E402
from edge_agent.console.deployment_directory import open_deployment  # noqa: E402
from edge_agent.protocol.broker import BrokerSettings  # noqa: E402
from edge_agent.protocol.link import Outgoing  # noqa: E402
from edge_agent.protocol.mqtt_link import MqttLink  # noqa: E402

PATIENCE_S = 90.0  # for a busy machine; the table says how long it took
STEADY_S = 3.0
MARKS = "<!-- faults -->", "<!-- end -->"  # around the table in docs/reliability.md


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
              f"{'; ' + self.note if self.note else ''}", flush=True)  # fmt: skip
        return outcome

    def deaf(self, act: Callable[[], None]) -> None:
        """Do something that silences the coordinator, and note when answers come again."""
        began = time.monotonic()
        act()
        back = self.load.wait_until_complete(PATIENCE_S)
        self.note += "; " if self.note else ""
        self.note += f"answers again after {time.monotonic() - began:.1f} s" if back is not None else "never again"


# The faults: each acts on a healthy fleet and leaves it as it found it.


def nothing(chaos: Chaos) -> None:
    chaos.load.run(STEADY_S)


def kill_agent(chaos: Chaos) -> None:
    killed = time.monotonic()
    chaos.fleet.kill("pi-1")
    chaos.load.run(STEADY_S)
    chaos.note = _first_degraded(chaos, killed)
    chaos.start_agent(1)
    _wait_online(chaos, "pi-1")


def stop_agent(chaos: Chaos) -> None:
    stopped = time.monotonic()
    chaos.fleet.send("pi-1", signal.SIGSTOP)
    chaos.load.run(STEADY_S)
    chaos.note = _first_degraded(chaos, stopped)
    chaos.fleet.send("pi-1", signal.SIGCONT)


def restart_coordinator(chaos: Chaos) -> None:
    def act() -> None:
        program = chaos.fleet.running.pop("coordinator")
        program.terminate()
        program.wait(20)
        chaos.fleet.start_coordinator(*chaos.coordinator_flags)

    chaos.deaf(act)


def kill_coordinator(chaos: Chaos) -> None:
    def act() -> None:
        chaos.fleet.send("pi-1", signal.SIGSTOP)  # so that frames are open when it dies
        chaos.load.run(0.4)
        chaos.fleet.kill("coordinator")
        chaos.fleet.send("pi-1", signal.SIGCONT)
        chaos.fleet.start_coordinator(*chaos.coordinator_flags)

    chaos.deaf(act)


def restart_broker(chaos: Chaos) -> None:
    def act() -> None:
        program = chaos.fleet.running.pop("broker")
        program.terminate()
        program.wait(20)
        chaos.fleet.start_broker()

    chaos.load.states.clear()
    chaos.deaf(act)
    chaos.note += _availability(chaos)


def kill_broker(chaos: Chaos) -> None:
    def act() -> None:
        chaos.fleet.kill("broker")
        for leftover in chaos.folder.glob("mosquitto.db*"):
            leftover.unlink()  # nothing retained survives: everybody must say again who they are
        chaos.fleet.start_broker()

    chaos.load.states.clear()
    chaos.deaf(act)
    chaos.note += _availability(chaos)


def cut_link(chaos: Chaos) -> None:
    chaos.proxy.harm = Harm(refuse=True)
    chaos.proxy.cut()
    chaos.load.run(STEADY_S)
    chaos.proxy.harm = Harm()


def slow_link(chaos: Chaos) -> None:
    chaos.proxy.harm = Harm(delay_s=0.08)
    chaos.load.run(STEADY_S)
    chaos.proxy.harm = Harm()


def too_slow_link(chaos: Chaos) -> None:
    chaos.proxy.harm = Harm(delay_s=0.6)
    chaos.load.run(STEADY_S)
    chaos.proxy.harm = Harm()


def harmed_messages(**parts: float) -> Callable[[Chaos], None]:
    def act(chaos: Chaos) -> None:
        chaos.proxy.harm = Harm(**parts)
        chaos.load.run(2 * STEADY_S)
        chaos.proxy.harm = Harm()

    return act


def slow_student(chaos: Chaos) -> None:
    """The program gets a fifth of the time that it would take."""
    end = time.monotonic() + STEADY_S
    while time.monotonic() < end:
        chaos.fleet.send("pi-2", signal.SIGSTOP)
        chaos.load.run(0.2)
        chaos.fleet.send("pi-2", signal.SIGCONT)
        chaos.load.run(0.05)


def random_messages(chaos: Chaos) -> None:
    link = _hostile_link(chaos)
    names = flood.topics(chaos.load.topics.root, chaos.deployment.id)
    rss = _rss(chaos)
    samples = [b'{"v":1,"state":"online","session":1}', chaos.deployment.manifest.to_bytes()[:400],
               bytes(range(1, 120)), b"\x01\x01" + bytes(118)]  # fmt: skip
    sent = flood.flood(link, names, chaos.messages, samples, lambda: chaos.load.run(0.15))
    link.close()
    chaos.note = f"{sent} messages on {len(names)} topics; {_growth(chaos, rss)}"


def oversize_payloads(chaos: Chaos) -> None:
    link = _hostile_link(chaos)
    rss = _rss(chaos)
    flood.oversize(link, flood.topics(chaos.load.topics.root, chaos.deployment.id)[:14:3])
    chaos.load.run(STEADY_S)
    link.close()
    chaos.note = f"5 of {flood.OVERSIZE_BYTES // 10**6} MB; {_growth(chaos, rss)}"


def hostile_leftovers(chaos: Chaos) -> None:
    """Retained junk on every topic and 1,200 invented devices; then everything starts on top of it."""
    link = _hostile_link(chaos)
    names = flood.topics(chaos.load.topics.root, chaos.deployment.id)
    names += [f"{chaos.load.topics.root}/node/ghost-{n}/state" for n in range(1200)]
    junk = [b'{"v":1,"state":"online","session":9007199254740991}', b"junk", b'{"v":1,"state":"offline","session":1}']
    for number, name in enumerate(names):
        link.publish(Outgoing(name, junk[number % 3], qos=1, retain=True))
        link.poll(0.001)

    def act() -> None:
        for name in ("pi-2", "coordinator"):
            chaos.fleet.kill(name)
        chaos.start_agent(2)
        chaos.fleet.start_coordinator(*chaos.coordinator_flags)

    chaos.deaf(act)
    for name in names:
        link.publish(Outgoing(name, b"", qos=1, retain=True))
        link.poll(0.001)
    link.close()
    for name in ("pi-1", "coordinator"):  # purged with the junk: these two publish their births again
        chaos.fleet.running[name].terminate()
        chaos.fleet.running.pop(name).wait(20)
    chaos.start_agent(1)
    chaos.deaf(lambda: chaos.fleet.start_coordinator(*chaos.coordinator_flags))


def clock_jumps(chaos: Chaos) -> None:
    """pi-1 and the coordinator live with a clock of their own: 20 years back, then 30 ahead, then back again."""
    shim, offset = _clock_shim(chaos.folder)
    offset.write_text("-630720000")
    os.environ["LD_PRELOAD"] = str(shim)
    os.environ["CLOCK_OFFSET_FILE"] = str(offset)
    for name in ("pi-1", "coordinator"):
        chaos.fleet.kill(name)

    def act() -> None:
        chaos.start_agent(1)
        chaos.fleet.start_coordinator(*chaos.coordinator_flags)

    chaos.deaf(act)
    for seconds in ("946080000", "-946080000", "0"):
        offset.write_text(seconds)
        chaos.load.run(1.5)
    for name in ("LD_PRELOAD", "CLOCK_OFFSET_FILE"):
        del os.environ[name]


def full_disk(chaos: Chaos) -> None:
    """Journal and log of the coordinator on a file system without a free byte."""
    place = chaos.folder / "full"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=True)

    def act() -> None:
        chaos.fleet.running["coordinator"].terminate()
        chaos.fleet.running.pop("coordinator").wait(20)
        folder, chaos.fleet.folder = chaos.fleet.folder, place
        chaos.fleet.start_coordinator("--journal", str(place / "journal"), "--log-level", "debug")
        chaos.fleet.folder = folder

    chaos.deaf(act)
    with suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    chaos.load.run(STEADY_S)

    def back() -> None:
        chaos.fleet.running["coordinator"].terminate()
        chaos.fleet.running.pop("coordinator").wait(20)
        subprocess.run(["umount", str(place)], check=True)
        chaos.fleet.start_coordinator(*chaos.coordinator_flags)

    chaos.deaf(back)


def memory_pressure(chaos: Chaos) -> None:
    """pi-2 shares a memory limit with a program that eats all of it; what the kernel kills is started again."""
    group = Path("/sys/fs/cgroup/memory/nonn-faults")
    group.mkdir(exist_ok=True)
    agent = chaos.fleet.running["pi-2"]
    eater = subprocess.Popen(["sleep", "60"])
    try:
        (group / "memory.limit_in_bytes").write_text(str(150 * 2**20))
        for program in (agent, eater):
            (group / "cgroup.procs").write_text(str(program.pid))
        eater.kill()
        hungry = "import time\na = []\nwhile True:\n    a.append(bytearray(2**20)); time.sleep(0.002)"
        joins = f"open('{group}/cgroup.procs', 'w').write('0')"
        eater = subprocess.Popen([sys.executable, "-c", f"{joins}\n{hungry}"], stderr=subprocess.DEVNULL)
        chaos.load.run(2 * STEADY_S)
        chaos.note = (
            "the kernel killed the agent" if agent.poll() is not None else "the kernel killed the other program"
        )
        if agent.poll() is not None:
            chaos.start_agent(2)
            _wait_online(chaos, "pi-2")
    finally:
        eater.kill()
        eater.wait()
        for pid in (group / "cgroup.procs").read_text().split():
            Path("/sys/fs/cgroup/memory/cgroup.procs").write_text(pid)
        with suppress(OSError):
            group.rmdir()


def lose_one_for_good(chaos: Chaos) -> None:
    """Fleet of three on auto: one dies and never comes back, another takes its student."""
    died = time.monotonic()
    chaos.fleet.kill("pi-0")
    chaos.load.run(1.0)
    healed = chaos.load.wait_until_complete(PATIENCE_S)
    if healed is not None:
        chaos.note = f"complete again without it after {time.monotonic() - died:.1f} s (away-s 3)"


SHARED: dict[str, Callable[[Chaos], None]] = {
    "no fault": nothing,
    "agent killed (SIGKILL), started again": kill_agent,
    "agent stopped 3 s (SIGSTOP)": stop_agent,
    "coordinator restarted": restart_coordinator,
    "coordinator killed (SIGKILL) with frames open": kill_coordinator,
    "broker restarted": restart_broker,
    "broker killed, its memory erased": kill_broker,
    "link of one agent cut 3 s": cut_link,
    "slow link: 80 ms each way": slow_link,
    "slow link: 600 ms each way, beyond the deadline": too_slow_link,
    "a fifth of one agent's messages lost": harmed_messages(lose=0.2),
    "a third repeated, a third reordered": harmed_messages(repeat=0.33, reorder=0.33),
    "a third truncated, a third random": harmed_messages(truncate=0.33, scramble=0.33),
    "slow student: a fifth of its CPU": slow_student,
    "oversize payloads": oversize_payloads,
    "hostile retained leftovers": hostile_leftovers,
    "clock jumps: -20, +30, -30 years": clock_jumps,
    "full disk under journal and log": full_disk,
    "memory pressure on one agent": memory_pressure,
    "random and truncated messages on every topic": random_messages,
}
HEALING = "fleet of three on auto loses one for good"


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", help="a page with marks for the table")
    parser.add_argument("--messages", type=int, default=10_000, help="random messages on each topic [10000]")
    parser.add_argument("--only", nargs="*", help="parts of names of faults")
    arguments = parser.parse_args()
    chosen = {n: f for n, f in SHARED.items() if not arguments.only or any(part in n for part in arguments.only)}
    outcomes: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if arguments.out:  # after every fault: hours may pass on a slow machine
            _put_into(arguments.out, _section(_table(outcomes), arguments.messages))

    if not arguments.only or any(part in HEALING for part in arguments.only):
        _run({HEALING: lose_one_for_good}, 0, note, ("auto",) * 3, "--away-s", "3")
    if chosen:
        _run(chosen, arguments.messages, note, ("0", "1", "2"))
    print(_table(outcomes))
    return int(any(o.counts["lost"] or o.counts["repeated"] or o.recovered_s is None for o in outcomes))


def _run(
    faults: dict[str, Callable[[Chaos], None]],
    messages: int,
    note: Callable[[Outcome], None],
    students: tuple[str, ...],
    *flags: str,
) -> None:
    with tempfile.TemporaryDirectory(prefix="nonn-faults-") as folder:
        chaos = Chaos(Path(folder), messages)
        try:
            chaos.start(students, *flags)
            for name, act in faults.items():
                try:
                    note(chaos.fault(name, act))
                except (OSError, subprocess.CalledProcessError) as error:
                    print(f"{name}: not possible on this machine: {error}", flush=True)
        finally:
            chaos.stop()
            for log in Path(folder).glob("*.log"):
                if "Traceback" in log.read_text(errors="replace"):
                    print(f"--- a traceback in {log.name}:\n{log.read_text(errors='replace')[-3000:]}", flush=True)


def _first_degraded(chaos: Chaos, since: float) -> str:
    degraded = [s.answers[0] for s in chaos.load.frames.values() if s.answers and s.answers[0][1].result == "degraded"
                and s.answers[0][0] > since]  # fmt: skip
    if not degraded:
        return "no degraded answer"
    longest = max(prediction.latency_ms.total for _, prediction in degraded)
    return f"first degraded answer after {degraded[0][0] - since:.2f} s, the slowest took {longest:.0f} ms"


def _wait_online(chaos: Chaos, device: str) -> None:
    topic = chaos.load.topics.node(device, "state")
    chaos.load.states.pop(topic, None)
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_S:
        chaos.load.run(0.05)
        if b'"online"' in chaos.load.states.get(topic, b""):
            return


def _availability(chaos: Chaos) -> str:
    chaos.load.run(1.0)
    states = {topic.split("/")[-2]: b'"online"' in payload for topic, payload in chaos.load.states.items()}
    wrong = [f"pi-{n}" for n in range(len(chaos.students)) if not states.get(f"pi-{n}")]
    return f"; availability wrong for {', '.join(wrong)}" if wrong else "; availability right for all"


def _hostile_link(chaos: Chaos) -> MqttLink:
    link = MqttLink(BrokerSettings(port=chaos.fleet.port), "hostile", [])
    while not link.connected:
        link.poll(0.05)
    return link


def _rss(chaos: Chaos) -> dict[str, int]:
    pages = {}
    for name, program in chaos.fleet.running.items():
        if name != "broker":
            pages[name] = int(Path(f"/proc/{program.pid}/statm").read_text().split()[1])
    return pages


def _growth(chaos: Chaos, before: dict[str, int]) -> str:
    now = _rss(chaos)
    most = max(now, key=lambda name: now[name] - before.get(name, now[name]))
    return f"memory at most +{(now[most] - before.get(most, now[most])) * 4 / 1024:.1f} MB ({most})"


def _clock_shim(folder: Path) -> tuple[Path, Path]:
    """A library that shifts CLOCK_REALTIME by the seconds in a file, read anew at every call."""
    source, shim, offset = folder / "shim.c", folder / "shim.so", folder / "offset"
    source.write_text(
        """#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <sys/syscall.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) {
  int result = syscall(SYS_clock_gettime, id, t);
  const char *name = getenv("CLOCK_OFFSET_FILE");
  FILE *f = (id == CLOCK_REALTIME && name) ? fopen(name, "r") : 0;
  if (f) { long s = 0; if (fscanf(f, "%ld", &s) == 1) t->tv_sec += s; fclose(f); }
  return result;
}
"""
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(shim), str(source)], check=True)
    return shim, offset


def _table(outcomes: list[Outcome]) -> str:
    lines = [
        "| fault | frames opened | complete | degraded | abandoned | lost | never opened | whole again after | notes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    total: Counter[str] = Counter()
    for outcome in outcomes:
        c = outcome.counts
        total += c
        recovered = "never" if outcome.recovered_s is None else f"{outcome.recovered_s:.1f} s"
        lines.append(f"| {outcome.fault} | {_cells(c)} | {recovered} | {outcome.note} |")
    lines.append(
        f"| **all** | {_cells(total)} | | answered twice: {total['repeated']}, same answer delivered again: "
        f"{total['redelivered']} |"
    )
    return "\n".join(lines) + "\n"


def _cells(counts: Counter[str]) -> str:
    abandoned = {name: n for name, n in counts.items() if name.startswith("abandoned")}
    opened = counts["complete"] + counts["degraded"] + sum(abandoned.values()) + counts["lost"]
    reasons = ", ".join(f"{n} {name[11:-1] or 'no reason'}" for name, n in sorted(abandoned.items())) or "0"
    return (
        f"{opened} | {counts['complete']} | {counts['degraded']} | {reasons} | {counts['lost']} | {counts['unopened']}"
    )


def _section(table: str, messages: int) -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.strip()
    load = os.getloadavg()[1]
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, load average {load:.1f}, Python {platform.python_version()}"
    )
    return f"""`python tests/fleet/faults.py --messages {messages} --out docs/reliability.md`
at commit {commit} on {machine}. Real mosquitto, real agents and coordinator on
`tests/fixtures/tiny`, 20 frames a second, deadline 500 ms.

{table}"""


def _put_into(page: Path, section: str) -> None:
    """Replace what stands between the page's marks; a file without them becomes the section alone."""
    text = page.read_text() if page.exists() else ""
    before, begins, rest = text.partition(MARKS[0])
    _, ends, after = rest.partition(MARKS[1])
    if begins and ends:
        section = f"{before}{begins}\n{section}{ends}{after}"
    write_atomically(page, section.encode())


if __name__ == "__main__":
    sys.exit(main())
