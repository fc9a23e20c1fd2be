"""Joins the features of each frame: messages and time in, events out. Pure; docs/protocol.md, section 8.

Only frames opened here take memory: whatever else arrives is an event and forgotten.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.value import value

FrameKey = tuple[str, int]  # source, frame_id
IgnoredReason = Literal["unknown", "late", "repeated", "replica", "width", "student", "deployment"]
AbandonReason = Literal["deadline", "overflow", "shutdown"]
# Closed frames remembered so that late features are told from unknown ones: half a minute at 100 frames/s.
REMEMBERED_FRAMES = 4096
# Of these, the last ones keep their features, so that a slower replica can be compared with the first answer:
# 128 frames x 8 students x 256 floats take 1 MB.
COMPARED_FRAMES = 128


@value
class Contribution:
    """What one student had to say. features: (width,), float32; times in seconds."""

    device: str
    features: NDArray[np.float32]
    student_s: float
    agent_s: float
    arrived_s: float


@value
class FrameMerged:
    """A frame to answer: all students, or at its deadline at least the quorum."""

    key: FrameKey
    opened_s: float
    contributions: dict[int, Contribution]
    missing: tuple[int, ...]
    deployment: str = ""


@dataclass(frozen=True, slots=True)
class FrameAbandoned:
    """A frame that too few students answered in time, or that made room for newer ones."""

    key: FrameKey
    opened_s: float
    present: tuple[int, ...]
    missing: tuple[int, ...]
    reason: AbandonReason
    deployment: str = ""


@value
class FrameProgressed:
    """An open frame has one student more and still waits for others."""

    key: FrameKey
    opened_s: float
    contributions: dict[int, Contribution]
    missing: tuple[int, ...]
    deployment: str = ""


@dataclass(frozen=True, slots=True)
class FeatureIgnored:
    """Features that changed nothing. `delay_s`: since its frame was opened, 0 where that is not known.

    `difference`: a replica's largest distance to the features that came first; None where those are gone.
    """

    key: FrameKey
    student: int
    device: str
    reason: IgnoredReason
    delay_s: float = 0.0
    difference: float | None = None


@dataclass(frozen=True, slots=True)
class FrameIgnored:
    """A frame that was opened before."""

    key: FrameKey


MergerEvent = FrameMerged | FrameAbandoned | FrameProgressed | FeatureIgnored | FrameIgnored


@dataclass(slots=True)
class _OpenFrame:
    opened_s: float
    deadline_s: float
    absent: frozenset[int] = frozenset()
    contributions: dict[int, Contribution] = field(default_factory=dict)


@dataclass(slots=True)
class _ClosedFrame:
    opened_s: float
    contributions: dict[int, Contribution] | None


class FeatureMerger:
    """Frames in flight of one deployment. `widths`: feature width of each student."""

    def __init__(self, deployment: str, widths: tuple[int, ...], quorum: int, max_open_frames: int) -> None:
        self.deployment = deployment
        self._widths = widths
        self.quorum = quorum
        self._max_open = max_open_frames
        self._open: OrderedDict[FrameKey, _OpenFrame] = OrderedDict()
        self._deadlines: list[tuple[float, FrameKey]] = []
        self._closed: OrderedDict[FrameKey, _ClosedFrame] = OrderedDict()
        self._compared: deque[FrameKey] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def open_frame(
        self, key: FrameKey, now: float, deadline_s: float, absent: frozenset[int] = frozenset()
    ) -> list[MergerEvent]:
        """Start to wait for a frame's features, until `deadline_s`; the oldest frame makes room if need be.

        `absent`: students that nobody runs just now; the frame does not wait for them.
        """
        if key in self._open or key in self._closed:
            return [FrameIgnored(key)]
        events: list[MergerEvent] = []
        if len(self._open) >= self._max_open:
            events.append(self._abandon(next(iter(self._open)), "overflow"))
        self._open[key] = _OpenFrame(now, deadline_s, absent)
        heapq.heappush(self._deadlines, (deadline_s, key))
        return events

    def receive(self, key: FrameKey, deployment: str, student: int, contribution: Contribution) -> list[MergerEvent]:
        """Take one student's features; the last one that can be expected closes the frame."""
        frame, widths = self._open.get(key), self._widths
        if (
            frame is None
            or deployment != self.deployment
            or student >= len(widths)
            or contribution.features.shape != (widths[student],)
            or student in frame.contributions
        ):
            return [self._ignored(key, deployment, student, contribution)]
        present = frame.contributions
        present[student] = contribution
        missing = self._missing(frame) if len(present) < len(widths) else ()
        if len(present) >= self.quorum and (not missing or frame.absent.issuperset(missing)):
            self._close(key)
            return [FrameMerged(key, frame.opened_s, present, missing, deployment)]
        return [FrameProgressed(key, frame.opened_s, present, missing, deployment)]

    def expire(self, now: float) -> list[MergerEvent]:
        """Close every frame whose deadline has come: degraded with the quorum, else abandoned."""
        events: list[MergerEvent] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, key = heapq.heappop(self._deadlines)
            frame = self._open.get(key)
            if frame is None or frame.deadline_s > now:
                continue  # answered meanwhile, or its id was used again
            if len(frame.contributions) < self.quorum:
                events.append(self._abandon(key, "deadline"))
            else:
                self._close(key)
                missing = self._missing(frame)
                events.append(FrameMerged(key, frame.opened_s, frame.contributions, missing, self.deployment))
        return events

    def next_deadline(self) -> float | None:
        """When `expire` will next have something to do."""
        while self._deadlines and self._deadlines[0][1] not in self._open:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def oldest_opened_s(self) -> float | None:
        """When the oldest open frame was opened."""
        oldest = next(iter(self._open.values()), None)
        return None if oldest is None else oldest.opened_s

    def abandon_all(self) -> list[MergerEvent]:
        """Close every open frame without a class: the coordinator stops."""
        return [self._abandon(key, "shutdown") for key in list(self._open)]

    def withdraw(self, key: FrameKey, opened_s: float) -> None:
        """A frame was answered elsewhere: its late features are late, and sent again it is not answered again."""
        if key in self._open:
            self._close(key)
        elif key not in self._closed:
            self._remember(key, _ClosedFrame(opened_s, None))

    def inherit_closed(self, other: "FeatureMerger") -> None:
        """Know the frames that `other` has closed: sent again, they are not answered again."""
        for key, opened_s in other.closed_frames():
            if key not in self._open and key not in self._closed:
                self._remember(key, _ClosedFrame(opened_s, None))

    def closed_frames(self) -> Iterator[tuple[FrameKey, float]]:
        """Frames that need no answer any more, and when they were opened."""
        return ((key, closed.opened_s) for key, closed in self._closed.items())

    def _ignored(self, key: FrameKey, deployment: str, student: int, contribution: Contribution) -> FeatureIgnored:
        """Why features change nothing."""
        device = contribution.device
        if deployment != self.deployment:
            return FeatureIgnored(key, student, device, "deployment")
        if student >= len(self._widths):
            return FeatureIgnored(key, student, device, "student")
        if contribution.features.shape != (self._widths[student],):
            return FeatureIgnored(key, student, device, "width")
        frame = self._open.get(key) or self._closed.get(key)
        if frame is None:
            return FeatureIgnored(key, student, device, "unknown")
        delay_s = contribution.arrived_s - frame.opened_s
        first = frame.contributions.get(student) if frame.contributions is not None else None
        if first is None:
            return FeatureIgnored(key, student, device, "late", delay_s)
        if first.device == device:
            return FeatureIgnored(key, student, device, "repeated", delay_s)
        difference = float(np.max(np.abs(contribution.features - first.features)))
        return FeatureIgnored(key, student, device, "replica", delay_s, difference)

    def _missing(self, frame: _OpenFrame) -> tuple[int, ...]:
        present = frame.contributions
        return tuple([student for student in range(len(self._widths)) if student not in present])

    def _abandon(self, key: FrameKey, reason: AbandonReason) -> FrameAbandoned:
        frame = self._close(key)
        present = tuple(sorted(frame.contributions))
        return FrameAbandoned(key, frame.opened_s, present, self._missing(frame), reason, self.deployment)

    def _close(self, key: FrameKey) -> _OpenFrame:
        frame = self._open.pop(key)
        self._remember(key, _ClosedFrame(frame.opened_s, frame.contributions))
        # Completed frames leave their deadlines behind; drop them before they outnumber the open ones.
        if len(self._deadlines) > 2 * self._max_open:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._open]
            heapq.heapify(self._deadlines)
        return frame

    def _remember(self, key: FrameKey, closed: _ClosedFrame) -> None:
        self._closed[key] = closed
        self._compared.append(key)
        if len(self._compared) > COMPARED_FRAMES:
            self._closed[self._compared.popleft()].contributions = None
        if len(self._closed) > REMEMBERED_FRAMES:
            self._closed.popitem(last=False)
