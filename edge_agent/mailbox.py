"""Frames waiting for the student: bounded, in order for files, newest only for live sources. Pure."""

from collections import deque
from dataclasses import dataclass

from edge_agent.protocol.frame_message import FrameMessage


@dataclass(frozen=True, slots=True)
class WaitingFrame:
    """A frame and when it came, in seconds of the agent's monotonic clock."""

    source: str
    frame: FrameMessage
    arrived_s: float


class FrameMailbox:
    """At most `capacity` frames. A live frame replaces the waiting live frame of its source."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: deque[WaitingFrame] = deque()
        self.dropped = 0  # replaced or pushed out

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, waiting: WaitingFrame) -> None:
        """Add a frame; what it replaces or pushes out is counted in `dropped`."""
        if waiting.frame.live:
            for older in self._waiting:
                if older.source == waiting.source and older.frame.live:
                    self._waiting.remove(older)
                    self.dropped += 1
                    break
        if len(self._waiting) >= self._capacity:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(waiting)

    def take(self) -> WaitingFrame | None:
        """The oldest waiting frame, or None."""
        return self._waiting.popleft() if self._waiting else None
