"""The table of docs/reliability.md."""

from collections import Counter

from chaos import Outcome


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


def section_of(outcomes: list[Outcome], troubles: list[str], messages: int) -> str:
    """What was run, the table, and what else there is to say."""
    return "\n".join([
        f"{len(outcomes)} faults, one run each; {messages:,} random messages on each topic. Real mosquitto, real",
        "agents and coordinator on `tests/fixtures/tiny`, 20 frames a second, deadline 500 ms.\n",
        table_of(outcomes), *(f"- {trouble}" for trouble in troubles),
    ])  # fmt: skip
