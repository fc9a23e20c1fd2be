"""Figures of recorded benchmarks: cells of the Markdown tables that a record keeps as its output."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

RECORDS = Path(__file__).parent / "records"
RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")  # between titles and rows
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


class FigureError(LookupError):
    """A record that has no such figure: it was printed by another version of its benchmark."""


@dataclass(frozen=True)
class Figure:
    """A cell by the begin of its row and of its column's title; without a column, the group of a pattern.

    `record`: name in benchmarks/records. `row`: begin of the first cells, joined by ` | `, or, without a column, a
    regular expression with one group over the whole output.
    """

    record: str
    row: str
    column: str = ""

    def text(self, records: Path = RECORDS) -> str | None:
        """The cell as it was printed; None while there is no such record."""
        file = records / f"{self.record}.json"
        if not file.exists():
            return None
        output = json.loads(file.read_text())["output"]
        found = self._cell(output) if self.column else self._match(output)
        if found is None:
            raise FigureError(f"{file.name}: no figure {self.row!r}, {self.column!r}; expected it in the output")
        return found

    def number(self, records: Path = RECORDS) -> float | None:
        """The first number of the cell."""
        text = self.text(records)
        if text is None:
            return None
        found = NUMBER.search(text)
        if found is None:
            raise FigureError(f"{self.record}: {text!r} in row {self.row!r} is not a number")
        return float(found[0].replace(",", ""))

    def _match(self, output: str) -> str | None:
        found = re.search(self.row, output, re.MULTILINE)
        return found[1].strip() if found else None

    def _cell(self, output: str) -> str | None:
        for titles, rows in tables(output):
            columns = [number for number, title in enumerate(titles) if title.startswith(self.column)]
            for cells in rows:
                if columns and " | ".join(cells).startswith(self.row):
                    return cells[columns[0]]
        return None


def tables(output: str) -> list[tuple[list[str], list[list[str]]]]:
    """All Markdown tables of a text: titles, rows."""
    found: list[tuple[list[str], list[list[str]]]] = []
    lines, inside = output.splitlines(), False
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if not line.startswith("|"):
            inside = False
        elif RULE.fullmatch(following.strip()):
            found.append((_cells(line), []))
            inside = True
        elif inside and not RULE.fullmatch(line.strip()):
            found[-1][1].append(_cells(line))
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
