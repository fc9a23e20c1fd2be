"""Put recorded benchmarks into the documents, between their markers; everything else in the pages stays.

    python benchmarks/results_page.py [--check]

In README.md and docs/*.md, `<!-- NAME -->` ... `<!-- end -->` is filled for these names:

result: RECORD    what benchmarks/records/RECORD.json holds (made by benchmarks/record.py)
summary           goals and the paper's figures beside ours, met or missed (goals.py)
figures           the table of README.md (goals.py)
boards            every file in benchmarks/records/boards, as `make results-on-pi` wrote it on somebody's device

--check writes nothing and ends with 1 if a page is not what the records say.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from goals import readme_table, summary
from record_figures import RECORDS, FigureError

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- (result: ([a-z0-9-]+)|summary|figures|boards) -->\n.*?<!-- end -->", re.DOTALL)
# What record.py writes, and of which kind.
FIELDS = {
    "command": str, "date": str, "commit": str, "machine": str, "load_average_before": (int, float),
    "seconds": (int, float), "versions": dict, "output": str,
}  # fmt: skip


class RecordError(ValueError):
    """A file that is no record."""


def main() -> int:
    """Fill or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    try:
        filled = {page: fill(page.read_text(), RECORDS) for page in pages}
    except (RecordError, FigureError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    different = [page for page in pages if filled[page] != page.read_text()]
    if arguments.check:
        for page in different:
            print(f"error: {page} is not what benchmarks/records says; run make results", file=sys.stderr)
        return int(bool(different))
    for page in different:
        page.write_text(filled[page])
        print(f"written: {page.relative_to(ROOT)}")
    shown = {match[2] for text in filled.values() for match in BLOCK.finditer(text)}
    unused = [file.stem for file in sorted(RECORDS.glob("*.json")) if file.stem not in shown]
    if unused:
        print(f"on no page: {', '.join(unused)}")
    return 0


def fill(page: str, records: Path) -> str:
    """Replace every block by what the records say."""
    makers = {"summary": summary, "figures": readme_table, "boards": boards}

    def filled(match: re.Match[str]) -> str:
        name = match[2]
        content = block(records / f"{name}.json") if name else makers[match[1]](records)
        return f"<!-- {match[1]} -->\n{content}\n<!-- end -->"

    return BLOCK.sub(filled, page)


def block(file: Path) -> str:
    """Return command, output and circumstances of one record."""
    if not file.exists():
        return "*Not measured yet.*"
    record = read(file)
    versions = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    missed = "\n\n**It missed a goal of its own.**" if record.get("missed") else ""
    note = f" {record['note']}" if "note" in record else ""
    return (
        f"```sh\n{record['command']}\n```\n\n{record['output']}{missed}\n\n"
        f"<sub>{record['date']}, commit {record['commit']}, {record['machine']}, load average before "
        f"{record['load_average_before']}, {record['seconds']:,.0f} s. {versions}.{note}</sub>"
    )


def read(file: Path) -> dict[str, Any]:
    """Check and return a record; RecordError says what is wrong with it."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{file}: not readable ({error}); expected a file of benchmarks/record.py") from None
    if not isinstance(record, dict):
        raise RecordError(f"{file}: not an object; expected a file of benchmarks/record.py")
    wrong = [name for name, kind in FIELDS.items() if not isinstance(record.get(name), kind)]
    if wrong:
        raise RecordError(f"{file}: without a proper {', '.join(wrong)}; expected a file of benchmarks/record.py")
    if "<!--" in record["output"]:
        raise RecordError(f"{file}: its output holds a comment, which would end the block; expected plain Markdown")
    return record


def boards(records: Path) -> str:
    """Every device that was measured, one block each."""
    files = sorted((records / "boards").glob("*.json"))
    return "\n\n".join(f"**{file.stem}**\n\n{block(file)}" for file in files) or "*No file has been sent in yet.*"


if __name__ == "__main__":
    sys.exit(main())
