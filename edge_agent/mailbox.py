"""Frames waiting for the students: bounded, sources in turn, newest only for live frames. Pure."""

from collections import OrderedDict, deque

from edge_agent.protocol.frame_message import FrameMessage
from edge_agent.protocol.value import value


@value
class WaitingFrame:
    """A frame and when it came, in seconds of the agent's monotonic clock.

    `packed`: it came in a pack and may be answered in one. `followed`: others of its pack come behind it.
    """

    source: str
    frame: FrameMessage
    arrived_s: float
    packed: bool = False
    followed: bool = False


class FrameMailbox:
    """At most `capacity` frames. A live frame replaces the waiting live frames of its source.

    Sources take turns, and a full mailbox drops the oldest frame of the source with most waiting: one that
    floods only hurts itself.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: OrderedDict[str, deque[WaitingFrame]] = OrderedDict()
        self._length = 0
        self.dropped = 0  # replaced or pushed out

    def __len__(self) -> int:
        return self._length

    def put(self, waiting: WaitingFrame) -> None:
        """Add a frame; what it replaces or pushes out is counted in `dropped`."""
        queue = self._waiting.setdefault(waiting.source, deque())
        if waiting.frame.live:
            while queue and queue[-1].frame.live:
                queue.pop()
                self._drop_one()
        queue.append(waiting)
        self._length += 1
        if self._length > self._capacity:
            self._push_out()

    def take(self) -> WaitingFrame | None:
        """The oldest frame of the source whose turn it is, or None."""
        if not self._waiting:
            return None
        source, queue = self._waiting.popitem(last=False)
        waiting = queue.popleft()
        if queue:
            self._waiting[source] = queue  # to the end: the others come first
        self._length -= 1
        return waiting

    def _push_out(self) -> None:
        longest = max(self._waiting, key=lambda source: len(self._waiting[source]))
        self._waiting[longest].popleft()
        if not self._waiting[longest]:
            del self._waiting[longest]
        self._drop_one()

    def _drop_one(self) -> None:
        self._length -= 1
        self.dropped += 1
