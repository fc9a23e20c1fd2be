"""How long to wait for a frame's students, learned from how long they took. Pure."""

import math
from collections import OrderedDict

# Buckets a fifth of a doubling wide (15 %), from 0.1 ms to 100 s: finer than the noise of any network.
_FIRST_S, _PER_DOUBLING, _BUCKETS = 1e-4, 5, 100
_MEMORY = 512.0  # frames after which old ones weigh half: a minute of a camera at 8 frames/s
_LEAST = 32  # frames before which a quantile means nothing
# All but 1 in 100 frames complete within this quantile; twice it covers the tail that the sample has not seen.
_QUANTILE, _MARGIN = 0.99, 2.0
MAX_SOURCES = 256  # names come from senders


class DelayHistogram:
    """Recent delays, older ones fading; constant memory."""

    def __init__(self) -> None:
        self._counts = [0.0] * _BUCKETS
        self._total = 0.0

    def add(self, delay_s: float) -> None:
        """Remember one delay."""
        position = int(math.log2(max(delay_s, _FIRST_S) / _FIRST_S) * _PER_DOUBLING)
        self._counts[min(position, _BUCKETS - 1)] += 1
        self._total += 1
        if self._total > 2 * _MEMORY:
            self._counts = [count / 2 for count in self._counts]
            self._total /= 2

    def quantile(self, part: float) -> float | None:
        """Upper edge of the bucket that holds the quantile, seconds; None before there are enough delays.

        >>> histogram = DelayHistogram()
        >>> for _ in range(100):
        ...     histogram.add(0.010)
        >>> 0.010 <= histogram.quantile(0.99) < 0.012
        True
        """
        if self._total < _LEAST:
            return None
        seen = 0.0
        for position, count in enumerate(self._counts):
            seen += count
            if seen >= part * self._total:
                return float(_FIRST_S * 2 ** ((position + 1) / _PER_DOUBLING))
        return None


class AdaptiveDeadlines:
    """A deadline for each source, between `least_s` and `most_s`."""

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least_s = min(least_s, most_s)
        self._most_s = most_s
        self._delays: OrderedDict[str, DelayHistogram] = OrderedDict()

    def observe(self, source: str, delay_s: float) -> None:
        """A frame was complete, or a student's features came too late, `delay_s` after the frame."""
        histogram = self._delays.get(source)
        if histogram is None:
            if len(self._delays) >= MAX_SOURCES:
                self._delays.popitem(last=False)
            histogram = self._delays[source] = DelayHistogram()
        self._delays.move_to_end(source)
        histogram.add(delay_s)

    def patience_s(self, source: str, live: bool) -> float:
        """Seconds to wait for a frame: what was seen and a margin for live frames, `most_s` for all others.

        Frames of files are worth waiting for: nothing newer replaces them.
        """
        histogram = self._delays.get(source) if live else None
        seen_s = histogram.quantile(_QUANTILE) if histogram is not None else None
        return self._most_s if seen_s is None else min(self._most_s, max(self._least_s, _MARGIN * seen_s))

    def by_source(self) -> dict[str, float]:
        """Present deadline of live frames of each source, seconds."""
        return {source: self.patience_s(source, live=True) for source in self._delays}
