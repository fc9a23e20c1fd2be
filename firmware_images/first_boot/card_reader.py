"""Typed values out of a card's document; what does not fit is noted, so that all problems are told at once. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from edge_agent.protocol.device_card import APPLIED


class CardProblemsError(ValueError):
    """Everything that is wrong with a card, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class CardReader:
    """Takes typed values out of a document and notes what does not fit; goes on to find all problems at once."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._taken: dict[str, set[str]] = {}
        self.problems: list[str] = []

    def table(self, name: str) -> Mapping[str, Any]:
        """Return a table; one that is not there is empty."""
        self._taken.setdefault(name, set())
        value = self._document.get(name, {})
        if not isinstance(value, dict):
            self.problems.append(f"[{name}]: expected a table")
            return {}
        return value

    def text(self, table: str, key: str, default: str | None, expected: str, pattern: re.Pattern[str] | None) -> str:
        """Return text that is as the pattern has it; without a default it must be there."""
        value = self._take(table, key, default)
        if value is None:
            self.problems.append(f"[{table}] {key}: missing; expected {expected}")
            return ""
        if not isinstance(value, str) or (value != default and pattern and not pattern.fullmatch(value)):
            shown = value if isinstance(value, str) else repr(value)
            self.problems.append(f'[{table}] {key} = "{shown}": expected {expected}')
            return ""
        return value

    def choice(self, table: str, key: str, choices: tuple[str, ...], default: str) -> str:
        """Return one of the choices."""
        value = self._take(table, key, default)
        if value not in choices:
            self.problems.append(f'[{table}] {key} = "{value}": expected one of {", ".join(choices)}')
            return default
        return str(value)

    def pem(self, table: str, key: str, kind: str) -> str:
        """Return a PEM block with one newline at its end; a secret may be the word that it was applied."""
        value = self._take(table, key, "")
        if value in ("", APPLIED):
            return str(value)
        if not isinstance(value, str) or f"-----BEGIN {kind}" not in value or "-----END " not in value:
            self.problems.append(f"[{table}] {key}: expected PEM text from -----BEGIN ... to -----END ...")
            return ""
        return value.strip() + "\n"

    def raw(self, table: str, key: str, default: object) -> object:
        """Return a value that the caller checks."""
        return self._take(table, key, default)

    def unknown(self) -> None:
        """Note every table and setting that nobody asked for."""
        for name, value in self._document.items():
            if name not in self._taken:
                self.problems.append(f"[{name}]: no such table; expected one of {', '.join(sorted(self._taken))}")
            elif isinstance(value, dict):
                for key in value.keys() - self._taken[name]:
                    known = ", ".join(sorted(self._taken[name]))
                    self.problems.append(f"[{name}] {key}: no such setting; expected one of {known}")

    def _take(self, table: str, key: str, default: object) -> object:
        found = self.table(table)
        self._taken[table].add(key)
        return found.get(key, default)
