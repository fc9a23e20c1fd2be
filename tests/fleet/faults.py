"""The chaos suite: real programs, a real broker, one fault after the other. Prints the table of docs/reliability.md.

    python tests/fleet/faults.py [--messages 10000] [--only NAME ...]
    python benchmarks/record.py --verdict faults python tests/fleet/faults.py; make results    # writes it down

Ends with 1 if a frame that the coordinator opened got no answer or two, if the fleet was not whole again, or if a
program wrote a traceback. How it goes is on stderr, the table on stdout.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2] / "benchmarks")]
import machine_faults  # noqa: E402
import message_faults  # noqa: E402
import program_faults  # noqa: E402
from chaos import Chaos, Outcome  # noqa: E402
from reliability_page import section_of  # noqa: E402

SHARED: dict[str, Callable[[Chaos], None]] = {
    "no fault": program_faults.nothing,
    "agent killed (SIGKILL), started again": program_faults.kill_agent,
    "agent stopped 3 s (SIGSTOP)": program_faults.stop_agent,
    "coordinator restarted": program_faults.restart_coordinator,
    "coordinator killed (SIGKILL) with frames open": program_faults.kill_coordinator,
    "broker restarted": program_faults.restart_broker,
    "broker killed, its memory erased": program_faults.kill_broker,
    "link of one agent cut 3 s": message_faults.cut_link,
    "slow link: 80 ms each way": message_faults.slow_link,
    "slow link: 600 ms each way, beyond the deadline": message_faults.too_slow_link,
    "a fifth of one agent's messages lost": message_faults.harmed_messages(lose=0.2),
    "a third repeated, a third reordered": message_faults.harmed_messages(repeat=0.33, reorder=0.33),
    "a third truncated, a third random": message_faults.harmed_messages(truncate=0.33, scramble=0.33),
    "slow student: a fifth of its CPU": program_faults.slow_student,
    "packs of 8: agent killed, started again": message_faults.in_packs(program_faults.kill_agent),
    "packs of 8: broker restarted": message_faults.in_packs(program_faults.restart_broker),
    "packs of 8: a fifth of one agent's messages lost, a third truncated": message_faults.in_packs(
        message_faults.harmed_messages(lose=0.2, truncate=0.33)
    ),
    "oversize payloads": message_faults.oversize_payloads,
    "hostile retained leftovers": message_faults.hostile_leftovers,
    "clock jumps: -20, +30, -30 years": machine_faults.clock_jumps,
    "full disk under journal and log": machine_faults.full_disk,
    "memory pressure on one agent": machine_faults.memory_pressure,
    "random and truncated messages on every topic": message_faults.random_messages,
}
TRACEBACK = "a traceback in"
HEALING = "fleet of three on auto loses one for good"


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000, help="random messages on each topic [10000]")
    parser.add_argument("--only", nargs="*", help="parts of names of faults")
    arguments = parser.parse_args()
    chosen = {n: f for n, f in SHARED.items() if not arguments.only or any(part in n for part in arguments.only)}
    outcomes: list[Outcome] = []
    troubles: list[str] = []
    if not arguments.only or any(part in HEALING for part in arguments.only):
        _run({HEALING: program_faults.lose_one_for_good}, 0, outcomes, troubles, ("auto",) * 3, "--away-s", "3")
    if chosen:
        _run(chosen, arguments.messages, outcomes, troubles, ("0", "1", "2"))
    print(section_of(outcomes, troubles, arguments.messages))
    tracebacks = any(TRACEBACK in trouble for trouble in troubles)
    bad = any(o.counts["lost"] or o.counts["repeated"] or o.recovered_s is None for o in outcomes)
    return int(bad or tracebacks)


def _run(
    faults: dict[str, Callable[[Chaos], None]],
    messages: int,
    outcomes: list[Outcome],
    troubles: list[str],
    students: tuple[str, ...],
    *flags: str,
) -> None:
    with tempfile.TemporaryDirectory(prefix="nonn-faults-") as folder:
        chaos = Chaos(Path(folder), messages)
        try:
            chaos.start(students, *flags)
            for name, act in faults.items():
                try:
                    outcomes.append(chaos.fault(name, act))
                except (OSError, subprocess.CalledProcessError) as error:
                    troubles.append(f"{name}: not possible on this machine: {error}")
                    print(troubles[-1], file=sys.stderr, flush=True)
        finally:
            chaos.stop()
            for log in Path(folder).glob("*.log"):
                text = log.read_text(errors="replace")
                if "Traceback" in text:
                    troubles.append(f"{TRACEBACK} {log.name}")
                    print(f"--- {troubles[-1]}:\n{text[-3000:]}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
