"""Metrics in Prometheus' text format, version 0.0.4: counters, gauges and histograms with bounded labels. Pure.

One thread writes, another may render: rows are copied before they are read, and a row is replaced, never resized.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Label values come from the network (sources, devices): beyond this many rows, new ones are counted as `other`.
MAX_ROWS = 512
OTHER = "other"
# From a gather on loopback (0.5 ms) to the longest deadline anybody sets for a live picture.
LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
Labels = tuple[str, ...]


class Metric:
    """A metric family: one row of numbers for each combination of label values."""

    kind = "untyped"

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name, self.text, self.labels = name, text, tuple(labels)
        self._rows: dict[Labels, float] = {}

    def value(self, *labels: str) -> float:
        """The row's number; 0 for a row that nothing was recorded in."""
        return self._rows.get(labels, 0.0)

    def render(self) -> str:
        """HELP, TYPE and all rows."""
        lines = [f"# HELP {self.name} {_escaped(self.text)}", f"# TYPE {self.name} {self.kind}"]
        return "\n".join([*lines, *self._lines()]) + "\n"

    def _lines(self) -> Iterable[str]:
        for labels, number in sorted(self._rows.copy().items()):
            yield f"{self.name}{_labelled(self.labels, labels)} {_number(number)}"

    def _bounded(self, labels: Labels) -> Labels:
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name}: labels {labels}, expected {self.labels}")
        if labels in self._rows or len(self._rows) < MAX_ROWS:
            return labels
        return (OTHER,) * len(labels)


class Counter(Metric):
    """Only grows; its name ends in _total."""

    kind = "counter"

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Count `amount` more."""
        row = self._bounded(labels)
        self._rows[row] = self._rows.get(row, 0.0) + amount

    def set_total(self, *labels: str, total: float) -> None:
        """Take over a total that is counted elsewhere."""
        self._rows[self._bounded(labels)] = total


class Gauge(Metric):
    """Goes up and down."""

    kind = "gauge"

    def set(self, *labels: str, number: float) -> None:
        """Take over the current number."""
        self._rows[self._bounded(labels)] = number

    def clear(self) -> None:
        """Forget all rows: what is not set again is gone."""
        self._rows = {}


class Histogram(Metric):
    """How often a number fell at or below each bound, and the sum of all numbers."""

    kind = "histogram"

    def __init__(
        self, name: str, text: str, labels: Sequence[str] = (), bounds: Sequence[float] = LATENCY_BUCKETS_S
    ) -> None:
        super().__init__(name, text, labels)
        self._bounds = tuple(bounds)
        self._counts: dict[Labels, list[int]] = {}

    def observe(self, *labels: str, number: float) -> None:
        """Record one number; `value` is the sum of them."""
        row = self._bounded(labels)
        counts = self._counts.get(row)
        if counts is None:
            counts = self._counts[row] = [0] * (len(self._bounds) + 1)
        counts[bisect_left(self._bounds, number)] += 1
        self._rows[row] = self._rows.get(row, 0.0) + number

    def _lines(self) -> Iterable[str]:
        for labels, total in sorted(self._rows.copy().items()):
            below = 0
            for bound, count in zip((*self._bounds, math.inf), self._counts[labels].copy(), strict=True):
                below += count
                row = _labelled((*self.labels, "le"), (*labels, _number(bound)))
                yield f"{self.name}_bucket{row} {below}"
            yield f"{self.name}_sum{_labelled(self.labels, labels)} {_number(total)}"
            yield f"{self.name}_count{_labelled(self.labels, labels)} {below}"


def render(metrics: Iterable[Metric]) -> str:
    """The body of a scrape."""
    return "".join(metric.render() for metric in metrics)


def _labelled(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escaped(value, quoted=True)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escaped(text: str, quoted: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quoted else text


def _number(number: float) -> str:
    """The shortest text that reads back as the same number.

    >>> _number(3.0), _number(0.1), _number(math.inf)
    ('3', '0.1', '+Inf')
    """
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    number = float(number)
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
