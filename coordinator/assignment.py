"""Which device runs which student: covers all students, heals, spreads back. Pure.

The decision is made anew from what is known; it is stable (decided twice, it is the same) and never takes a student
from a device before another one says that it runs it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_agent.protocol.status import NodeInfo, NodeTelemetry

Assignment = tuple[int, ...]
# A device is full when its students together take this part of the deadline: the rest is network and noise.
BUSY_PART = 0.8
# An interpreter takes its artifact, tensors and arenas: measured 3 to 6 times the artifact's bytes.
MEMORY_PER_ARTIFACT_BYTE = 8
MEMORY_RESERVE_BYTES = 32 * 2**20  # left to the rest of the device


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device as the decision sees it."""

    name: str
    online: bool
    away_s: float  # since it went offline; 0 while online
    auto: bool  # takes what it is given; otherwise `running` is its own choice
    assigned: Assignment  # what it was given last
    running: Assignment  # what it says it runs
    room: int  # most students it can run
    speed_ms: float = 0.0  # time of one student, 0 if not known


def room_of(info: NodeInfo, telemetry: NodeTelemetry | None, artifact_bytes: int, deadline_s: float, most: int) -> int:
    """How many students a device can run: bounded by its memory and by its time within the deadline.

    Never less than it runs already: a slow minute is no reason to take a student away from it.
    """
    running = len(info.students)
    if telemetry is None:
        return min(most, max(1, running))
    free_bytes = max(0, telemetry.memory_available_bytes - MEMORY_RESERVE_BYTES)
    room = running + free_bytes // max(1, MEMORY_PER_ARTIFACT_BYTE * artifact_bytes)
    if telemetry.student_ms_p95:
        room = min(room, int(BUSY_PART * deadline_s * 1000 / telemetry.student_ms_p95))
    return min(most, max(1, running, room))


def assign(
    students: int, candidates: Sequence[Candidate], patience_s: float, pinned: Mapping[str, Assignment]
) -> dict[str, Assignment]:
    """What every `auto` device shall run. `pinned`: devices whose students were chosen by hand.

    Devices away for less than `patience_s` keep their students; after that the others take these over, and the
    absent one's own assignment waits for its return.
    """
    fixed = {c.name: tuple(sorted(pinned[c.name])) for c in candidates if c.auto and c.name in pinned}
    plan = {c.name: _kept(c, students) for c in candidates if c.auto and c.name not in fixed}
    there = [c for c in candidates if c.online or c.away_s < patience_s]
    free = {c.name: c for c in there if c.name in plan}
    holders = _Holders(students, {c.name: fixed.get(c.name) or plan.get(c.name, c.running) for c in there})
    ready = _Holders(students, {c.name: c.running for c in there if c.online})
    _shed(free, holders, ready)
    _cover(students, free, holders)
    _spread(students, free, holders)
    return {**plan, **{name: holders.of(name) for name in free}, **fixed}


class _Holders:
    """Who holds which student while the decision is made."""

    def __init__(self, students: int, held: Mapping[str, Assignment]) -> None:
        self._held = {name: {s for s in assignment if s < students} for name, assignment in held.items()}

    def of(self, name: str) -> Assignment:
        return tuple(sorted(self._held[name]))

    def load(self, name: str) -> int:
        return len(self._held[name])

    def holding(self, student: int) -> list[str]:
        return [name for name, held in self._held.items() if student in held]

    def give(self, name: str, student: int) -> None:
        self._held[name].add(student)

    def take(self, name: str, student: int) -> None:
        self._held[name].discard(student)


def _kept(candidate: Candidate, students: int) -> Assignment:
    return tuple(sorted(s for s in set(candidate.assigned) if s < students))[: candidate.room]


def _shed(free: Mapping[str, Candidate], holders: _Holders, ready: _Holders) -> None:
    """A device with several students gives up one that a device with fewer runs already."""
    for name in sorted(free, key=lambda n: (-holders.load(n), n)):
        for student in reversed(holders.of(name)):
            others = [o for o in ready.holding(student) if o != name and student in holders.of(o)]
            if holders.load(name) > 1 and any(holders.load(other) < holders.load(name) for other in others):
                holders.take(name, student)


def _cover(students: int, free: Mapping[str, Candidate], holders: _Holders) -> None:
    """Students that nobody holds go to the devices with least to do."""
    for student in range(students):
        if not holders.holding(student):
            name = _least_loaded(free, holders)
            if name is None:
                return
            holders.give(name, student)


def _spread(students: int, free: Mapping[str, Candidate], holders: _Holders) -> None:
    """Devices with two students less than the busiest take one of its students; idle ones become replicas."""
    for _ in range(len(free) * students):
        name = _least_loaded(free, holders)
        if name is None:
            return
        wanted = _most_wanted(students, name, free, holders)
        if wanted is None:
            return
        holders.give(name, wanted)


def _least_loaded(free: Mapping[str, Candidate], holders: _Holders) -> str | None:
    with_room = [c for c in free.values() if c.online and holders.load(c.name) < c.room]
    if not with_room:
        return None
    return min(with_room, key=lambda c: (holders.load(c.name), c.speed_ms, c.name)).name


def _most_wanted(students: int, name: str, free: Mapping[str, Candidate], holders: _Holders) -> int | None:
    """The student whose only holder has at least two more than `name`; for an idle device, the least replicated."""
    load = holders.load(name)
    wanted: list[tuple[int, int, int]] = []
    for student in range(students):
        holding = holders.holding(student)
        if name in holding:
            continue
        lightest = min((holders.load(holder) for holder in holding), default=0)
        if len(holding) == 1 and holding[0] in free and lightest - load >= 2:
            wanted.append((0, -lightest, student))
        elif load == 0:
            wanted.append((len(holding), 0, student))
    return min(wanted)[2] if wanted else None
