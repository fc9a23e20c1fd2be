"""How fast each source counts its frames: where in its future a switch may be put. Pure."""

from collections import OrderedDict, deque
from itertools import pairwise
from math import ceil
from statistics import median_low

WINDOW_S = 2.0
MAX_SOURCES = 1024
MAX_MARKS = 128
MOST_STEPS = 16  # ids of a source that was restarted leap by hours; a leap counts as so many ordinary steps


class SourceClock:
    """The last frames of each source. Ids may count by one or by microseconds: only their speed matters."""

    def __init__(self) -> None:
        self._marks: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()

    @property
    def sources(self) -> list[str]:
        """Sources that were seen, the quietest first."""
        return list(self._marks)

    def seen(self, source: str, frame_id: int, now: float) -> None:
        """A frame of `source` came."""
        marks = self._marks.setdefault(source, deque(maxlen=MAX_MARKS))
        self._marks.move_to_end(source)
        if not marks or frame_id > marks[-1][1]:  # a frame sent again says nothing about the speed
            marks.append((now, frame_id))
        if len(self._marks) > MAX_SOURCES:
            self._marks.popitem(last=False)

    def last_frame(self, source: str) -> int:
        """The highest frame id so far."""
        return self._marks[source][-1][1]

    def quiet_s(self, source: str, now: float) -> float:
        """Seconds since its last frame."""
        return now - self._marks[source][-1][0]

    def frame_after(self, source: str, margin_s: float, now: float) -> int | None:
        """The first id that `source` will use at least `margin_s` from now; None: too early to tell."""
        marks = self._marks[source]
        if self.quiet_s(source, now) > WINDOW_S:
            return marks[-1][1] + 1
        recent = [mark for mark in marks if now - mark[0] <= WINDOW_S]
        if len(recent) < 2:
            # A frame every two seconds or so: never two in the window, and seldom a look when it is empty.
            recent = [mark for mark in list(marks)[-2:] if marks[-1][0] - mark[0] <= 2 * WINDOW_S]
        if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
            return None
        typical = median_low(later[1] - earlier[1] for earlier, later in pairwise(marks))
        gained = sum(min(later[1] - earlier[1], MOST_STEPS * typical) for earlier, later in pairwise(recent))
        per_s = gained / (recent[-1][0] - recent[0][0])
        # The clock may have missed the source's last frames: count from what it should have reached by now.
        return recent[-1][1] + 1 + ceil(per_s * (margin_s + now - recent[-1][0]))
