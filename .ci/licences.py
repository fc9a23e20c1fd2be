#!/usr/bin/env python3
"""Licences of what an agent and a coordinator install, from the packages' metadata; exit 1 for one we can't ship."""

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# The trainer stays on its owner's PC; these two go out on SD images and in Debian packages.
SHIPPED_EXTRAS = ("agent", "coordinator")
# MPL-2.0 binds its own files alone: packages under it travel unmodified.
ACCEPTED = (
    "0BSD", "3-Clause BSD", "Apache", "BSD", "CC0", "HPND", "ISC", "MIT", "MPL-2.0", "Mozilla Public License 2.0",
    "PSF", "Python Software Foundation", "Unlicense", "Zlib",
)  # fmt: skip
_COPYLEFT = re.compile(r"\b[AL]?GPL|GNU|\bSSPL\b|\bBUSL\b", re.IGNORECASE)


@dataclass(frozen=True)
class Licence:
    """What one distribution says of itself."""

    package: str
    version: str
    text: str

    @property
    def is_accepted(self) -> bool:
        """One of the alternatives that it offers is on the list, whole."""
        return any(accepted(choice) for choice in re.split(r"\s+OR\s+", self.text))


def accepted(terms: str) -> bool:
    """Every term of `terms` is on the list, and nothing is like the GPL.

    >>> accepted("MIT AND BSD-3-Clause"), accepted("GPL-2.0-only"), accepted("MIT AND GPL-2.0-only"), accepted("")
    (True, False, False, False)
    """
    parts = [part.strip(" ()") for part in re.split(r"\s+(?:AND|WITH)\s+|,", terms)]
    return not _COPYLEFT.search(terms) and all(
        any(re.match(re.escape(name) + r"\b", part, re.IGNORECASE) for name in ACCEPTED) for part in parts
    )


def required(extras: tuple[str, ...]) -> Iterator[metadata.Distribution]:
    """Every distribution that the project with `extras` brings on this machine."""
    seen: set[tuple[str, str]] = set()
    told: set[str] = set()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    waiting = [(Requirement(line), "") for line in lines]
    while waiting:
        requirement, extra = waiting.pop()
        # `extra` must have some value for markers that ask for it.
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        distribution = metadata.distribution(name)
        if name not in told:
            told.add(name)
            yield distribution
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                waiting += [(Requirement(line), wanted) for line in distribution.requires or ()]


def licence_of(distribution: metadata.Distribution) -> Licence:
    """The licence expression, else the classifiers, else the first line of the licence field."""
    about = distribution.metadata
    name = canonicalize_name(about["Name"])
    classifiers = [
        line.rsplit(" :: ", 1)[-1].removesuffix(" License")
        for line in about.get_all("Classifier", [])
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    free_text = (about.get("License") or "").strip().splitlines()
    text = about.get("License-Expression") or " AND ".join(classifiers) or "".join(free_text[:1])
    return Licence(name, distribution.version, text or "none named")


def shipped_licences() -> list[Licence]:
    """All of them, by name."""
    return sorted((licence_of(found) for found in required(SHIPPED_EXTRAS)), key=lambda licence: licence.package)


def main() -> int:
    """Print the table; 1 if a licence is none that we may ship with."""
    licences = shipped_licences()
    for licence in licences:
        mark = "" if licence.is_accepted else "   <-- not on the list of .ci/licences.py"
        print(f"{licence.package:24} {licence.version:12} {licence.text}{mark}")
    return 0 if all(licence.is_accepted for licence in licences) else 1


if __name__ == "__main__":
    sys.exit(main())
