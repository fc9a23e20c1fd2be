"""The report: one HTML file that needs nothing but a browser."""

from html import escape
from pathlib import Path

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.report.facts import RunFacts, read_facts
from trainer.report.results import against_teacher_section, precisions_section, subsets_section, tiles_section
from trainer.report.sections import (
    classes_section,
    curves_section,
    gaps_section,
    graph_section,
    liked_section,
    origin_section,
    partition_section,
)
from trainer.report.style import CSS, SCRIPT

FILE_NAME = "report.html"


def write_report(run: Path) -> Path:
    """Write RUN/report.html from what the run has so far; pictures of its images stay in that file."""
    facts = read_facts(run)
    file = run / FILE_NAME
    try:
        write_atomically(file, render(facts).encode())
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; expected a place to write to", ExitCode.IO_ERROR) from None
    return file


def render(facts: RunFacts) -> str:
    """The page's text."""
    # Pictures come late on the page but first in time: they may add to the list of gaps.
    liked = liked_section(facts)
    sections = [
        tiles_section(facts),
        gaps_section(facts),
        against_teacher_section(facts),
        subsets_section(facts),
        precisions_section(facts),
        partition_section(facts),
        graph_section(facts),
        classes_section(facts),
        curves_section(facts),
        liked,
        origin_section(facts),
    ]
    title = f"{facts.student_count} students for {facts.teacher_name}"
    dataset = Path(str(facts.configuration.get("dataset", "?"))).name
    networks = ", ".join(dict.fromkeys(facts.configuration.get("student", [])))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)} - NoNN Edge</title><style>{CSS}</style></head><body><main>"
        f'<header><h1>{escape(title)}</h1><span class="soft">{escape(dataset)} · {escape(networks)} · '
        f"{escape(str(facts.path.resolve().name))} · {escape(str(facts.run.get('created', ''))[:10])}</span></header>"
        f"{''.join(sections)}</main><script>{SCRIPT}</script></body></html>\n"
    )
