"""The table of docs/reliability.md."""

import os
import platform
import subprocess
from collections import Counter
from pathlib import Path

from chaos import Outcome
from fleet_processes import REPOSITORY

from edge_agent.console.atomic_file import write_atomically

MARKS = "<!-- faults -->", "<!-- end -->"  # around it in the page


def table_of(outcomes: list[Outcome]) -> str:
    lines = [
        "| fault | frames opened | complete | degraded | abandoned | lost | never opened | whole again after | notes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    total: Counter[str] = Counter()
    for outcome in outcomes:
        c = outcome.counts
        total += c
        recovered = "never" if outcome.recovered_s is None else f"{outcome.recovered_s:.1f} s"
        lines.append(f"| {outcome.fault} | {cells(c)} | {recovered} | {outcome.note} |")
    lines.append(
        f"| **all** | {cells(total)} | | answered twice: {total['repeated']}, same answer delivered again: "
        f"{total['redelivered']} |"
    )
    return "\n".join(lines) + "\n"


def cells(counts: Counter[str]) -> str:
    abandoned = {name: n for name, n in counts.items() if name.startswith("abandoned")}
    opened = counts["complete"] + counts["degraded"] + sum(abandoned.values()) + counts["lost"]
    reasons = ", ".join(f"{n} {name[11:-1] or 'no reason'}" for name, n in sorted(abandoned.items())) or "0"
    return (
        f"{opened} | {counts['complete']} | {counts['degraded']} | {reasons} | {counts['lost']} | {counts['unopened']}"
    )


def section_of(table: str, messages: int) -> str:
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


def put_into(page: Path, section: str) -> None:
    """Replace what stands between the page's marks; a file without them becomes the section alone."""
    text = page.read_text() if page.exists() else ""
    before, begins, rest = text.partition(MARKS[0])
    _, ends, after = rest.partition(MARKS[1])
    if begins and ends:
        section = f"{before}{begins}\n{section}{ends}{after}"
    write_atomically(page, section.encode())
