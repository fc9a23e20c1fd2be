"""Put the recorded benchmarks into docs/results.md, between its markers; everything else in the page stays.

    python benchmarks/results_page.py [--check]

`<!-- result: NAME -->` ... `<!-- end -->` is filled from benchmarks/records/NAME.json (made by benchmarks/record.py).
--check writes nothing and ends with 1 if the page is not what the records say.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE, RECORDS = ROOT / "docs" / "results.md", ROOT / "benchmarks" / "records"
BLOCK = re.compile(r"<!-- result: ([a-z0-9-]+) -->\n.*?<!-- end -->", re.DOTALL)


def main() -> int:
    """Fill or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    page = PAGE.read_text()
    filled = fill(page)
    if arguments.check:
        if filled != page:
            print(f"error: {PAGE} is not what benchmarks/records says; run make results", file=sys.stderr)
        return int(filled != page)
    PAGE.write_text(filled)
    names = sorted(file.stem for file in RECORDS.glob("*.json"))
    unused = [name for name in names if f"<!-- result: {name} -->" not in page]
    print(f"{PAGE}: {len(names) - len(unused)} records" + (f"; not on the page: {', '.join(unused)}" if unused else ""))
    return 0


def fill(page: str) -> str:
    """Replace every block by its record."""
    return BLOCK.sub(lambda match: f"<!-- result: {match[1]} -->\n{block(match[1])}\n<!-- end -->", page)


def block(name: str) -> str:
    """Return command, output and circumstances of one record."""
    file = RECORDS / f"{name}.json"
    if not file.exists():
        return "*Not measured yet.*"
    record = json.loads(file.read_text())
    versions = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    return (
        f"```sh\n{record['command']}\n```\n\n{record['output']}\n\n"
        f"<sub>{record['date']}, commit {record['commit']}, {record['machine']}, load average before "
        f"{record['load_average_before']}, {record['seconds']:,.0f} s. {versions}.</sub>"
    )


if __name__ == "__main__":
    sys.exit(main())
