"""Joins the features of each frame: messages and time in, events out. Pure; docs/protocol.md, section 8.

Only frames opened here take memory: whatever else arrives is an event and forgotten.
"""

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FrameKey = tuple[str, int]  # source, frame_id
IgnoredReason = Literal["unknown", "late", "repeated", "width", "student", "deployment"]
# Closed frames remembered so that late features are told from unknown ones: half a minute at 100 frames/s.
REMEMBERED_FRAMES = 4096


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one student had to say. features: (width,), float32; times in seconds."""

    device: str
    features: NDArray[np.float32]
    student_s: float
    agent_s: float
    arrived_s: float


@dataclass(frozen=True, slots=True)
class FrameMerged:
    """A frame to answer: all students, or at its deadline at least the quorum."""

    key: FrameKey
    opened_s: float
    contributions: dict[int, Contribution]
    missing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FrameAbandoned:
    """A frame that too few students answered in time, or that made room for newer ones."""

    key: FrameKey
    opened_s: float
    present: tuple[int, ...]
    missing: tuple[int, ...]
    reason: Literal["deadline", "overflow"]


@dataclass(frozen=True, slots=True)
class FeatureIgnored:
    """Features that changed nothing."""

    key: FrameKey
    student: int
    device: str
    reason: IgnoredReason


@dataclass(frozen=True, slots=True)
class FrameIgnored:
    """A frame that was opened before."""

    key: FrameKey


MergerEvent = FrameMerged | FrameAbandoned | FeatureIgnored | FrameIgnored


@dataclass(slots=True)
class _OpenFrame:
    opened_s: float
    deadline_s: float
    contributions: dict[int, Contribution] = field(default_factory=dict)


class FeatureMerger:
    """Frames in flight of one deployment. `widths`: feature width of each student."""

    def __init__(self, deployment: str, widths: tuple[int, ...], quorum: int, max_open_frames: int) -> None:
        self._deployment = deployment
        self._widths = widths
        self._quorum = quorum
        self._max_open = max_open_frames
        self._open: OrderedDict[FrameKey, _OpenFrame] = OrderedDict()
        self._deadlines: list[tuple[float, FrameKey]] = []
        self._closed: OrderedDict[FrameKey, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def open_frame(self, key: FrameKey, now: float, deadline_s: float) -> list[MergerEvent]:
        """Start to wait for a frame's features, until `deadline_s`; the oldest frame makes room if need be."""
        if key in self._open or key in self._closed:
            return [FrameIgnored(key)]
        events: list[MergerEvent] = []
        if len(self._open) >= self._max_open:
            events.append(self._abandon(next(iter(self._open)), "overflow"))
        self._open[key] = _OpenFrame(now, deadline_s)
        heapq.heappush(self._deadlines, (deadline_s, key))
        return events

    def receive(self, key: FrameKey, deployment: str, student: int, contribution: Contribution) -> list[MergerEvent]:
        """Take one student's features; the last missing one completes the frame."""
        reason = self._reason_to_ignore(key, deployment, student, contribution)
        if reason is not None:
            return [FeatureIgnored(key, student, contribution.device, reason)]
        frame = self._open[key]
        frame.contributions[student] = contribution
        if len(frame.contributions) < len(self._widths):
            return []
        self._close(key)
        return [FrameMerged(key, frame.opened_s, frame.contributions, ())]

    def expire(self, now: float) -> list[MergerEvent]:
        """Close every frame whose deadline has come: degraded with the quorum, else abandoned."""
        events: list[MergerEvent] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, key = heapq.heappop(self._deadlines)
            frame = self._open.get(key)
            if frame is None:
                continue
            if len(frame.contributions) < self._quorum:
                events.append(self._abandon(key, "deadline"))
            else:
                self._close(key)
                events.append(FrameMerged(key, frame.opened_s, frame.contributions, self._missing(frame)))
        return events

    def next_deadline(self) -> float | None:
        """When `expire` will next have something to do."""
        while self._deadlines and self._deadlines[0][1] not in self._open:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _reason_to_ignore(
        self, key: FrameKey, deployment: str, student: int, contribution: Contribution
    ) -> IgnoredReason | None:
        if deployment != self._deployment:
            return "deployment"
        if student >= len(self._widths):
            return "student"
        if contribution.features.shape != (self._widths[student],):
            return "width"
        frame = self._open.get(key)
        if frame is None:
            return "late" if key in self._closed else "unknown"
        return "repeated" if student in frame.contributions else None

    def _missing(self, frame: _OpenFrame) -> tuple[int, ...]:
        return tuple(student for student in range(len(self._widths)) if student not in frame.contributions)

    def _abandon(self, key: FrameKey, reason: Literal["deadline", "overflow"]) -> FrameAbandoned:
        frame = self._close(key)
        return FrameAbandoned(key, frame.opened_s, tuple(sorted(frame.contributions)), self._missing(frame), reason)

    def _close(self, key: FrameKey) -> _OpenFrame:
        frame = self._open.pop(key)
        self._closed[key] = None
        if len(self._closed) > REMEMBERED_FRAMES:
            self._closed.popitem(last=False)
        # Completed frames leave their deadlines behind; drop them before they outnumber the open ones.
        if len(self._deadlines) > 2 * self._max_open:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._open]
            heapq.heapify(self._deadlines)
        return frame
