"""Two mergers while a site switches: each frame is answered by one deployment, whole. Pure.

A frame waits in both. The first deployment whose students are all there answers; at the deadline the one with more of
them does, and the scheduled one if they are equal. So a device that heard of the switch late costs nothing, and no
answer is ever made of two deployments: each merger sees the features of its own.
"""

from collections.abc import Iterable

from coordinator.feature_merger import (
    Contribution,
    FeatureMerger,
    FrameAbandoned,
    FrameIgnored,
    FrameKey,
    FrameMerged,
    FrameProgressed,
    MergerEvent,
)
from edge_agent.protocol.switch_schedule import SwitchSchedule

Closing = FrameMerged | FrameAbandoned


class TwinMerger:
    """Behaves as one FeatureMerger. `old` and `new` have the same quorum and room."""

    def __init__(self, old: FeatureMerger, new: FeatureMerger, schedule: SwitchSchedule) -> None:
        self.old, self.new = old, new
        self.schedule = schedule
        self.quorum = old.quorum
        new.inherit_closed(old)

    def __len__(self) -> int:
        return max(len(self.old), len(self.new))

    def open_frame(
        self, key: FrameKey, now: float, deadline_s: float, absent: frozenset[int] = frozenset()
    ) -> list[MergerEvent]:
        """Start to wait in both. `absent` is of one deployment, and does not count while there are two."""
        del absent
        first, second = self._expected(key), self._other(key)
        events = first.open_frame(key, now, deadline_s)
        if any(isinstance(event, FrameIgnored) for event in events):
            return events
        return self._best([*events, *second.open_frame(key, now, deadline_s)])

    def receive(self, key: FrameKey, deployment: str, student: int, contribution: Contribution) -> list[MergerEvent]:
        """Features go to the merger of their deployment."""
        merger = next((m for m in (self.old, self.new) if m.deployment == deployment), self._expected(key))
        events = merger.receive(key, deployment, student, contribution)
        if merger is not self._expected(key):
            # Early answers and progress are told of the scheduled deployment alone.
            events = [event for event in events if not isinstance(event, FrameProgressed)]
        for event in events:
            if isinstance(event, FrameMerged):
                (self.new if merger is self.old else self.old).withdraw(event.key, event.opened_s)
        return events

    def expire(self, now: float) -> list[MergerEvent]:
        """Close what is due in both, once."""
        return self._best([*self.old.expire(now), *self.new.expire(now)])

    def next_deadline(self) -> float | None:
        """When `expire` will next have something to do."""
        return min((d for d in (self.old.next_deadline(), self.new.next_deadline()) if d is not None), default=None)

    def oldest_opened_s(self) -> float | None:
        """When the oldest open frame was opened."""
        return min((s for s in (self.old.oldest_opened_s(), self.new.oldest_opened_s()) if s is not None), default=None)

    def withdraw(self, key: FrameKey, opened_s: float) -> None:
        """A frame was answered elsewhere."""
        self.old.withdraw(key, opened_s)
        self.new.withdraw(key, opened_s)

    def abandon_all(self) -> list[MergerEvent]:
        """Close every open frame without a class, once."""
        return self._best([*self.old.abandon_all(), *self.new.abandon_all()])

    def _best(self, events: Iterable[MergerEvent]) -> list[MergerEvent]:
        chosen: dict[FrameKey, Closing] = {}
        others: list[MergerEvent] = []
        for event in events:
            if not isinstance(event, Closing):
                others.append(event)
            elif event.key not in chosen or self._rank(event) > self._rank(chosen[event.key]):
                chosen[event.key] = event
        for key, event in chosen.items():
            self.withdraw(key, event.opened_s)
        return [*others, *chosen.values()]

    def _rank(self, event: Closing) -> tuple[bool, float, bool]:
        """Answered before abandoned, then by the share of students, then as scheduled."""
        present = len(event.contributions) if isinstance(event, FrameMerged) else len(event.present)
        share = present / (present + len(event.missing))
        return isinstance(event, FrameMerged), share, event.deployment == self._expected(event.key).deployment

    def _expected(self, key: FrameKey) -> FeatureMerger:
        return self.new if self.schedule.deployment_for(*key) == self.new.deployment else self.old

    def _other(self, key: FrameKey) -> FeatureMerger:
        return self.old if self._expected(key) is self.new else self.new
