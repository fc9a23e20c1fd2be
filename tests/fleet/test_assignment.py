"""The assignment decision: covers, fits, stays, never opens a gap."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from coordinator.assignment import Assignment, Candidate, assign, room_of
from edge_agent.protocol.status import NodeInfo, NodeTelemetry, StudentInfo

PATIENCE_S = 10.0


@st.composite
def candidates(draw: st.DrawFn) -> tuple[int, list[Candidate]]:
    students = draw(st.integers(1, 8))
    devices = []
    for number in range(draw(st.integers(0, 8))):
        assigned = tuple(sorted(draw(st.sets(st.integers(0, 9), max_size=4))))
        online = draw(st.booleans())
        devices.append(
            Candidate(
                name=f"pi-{number}", online=online, away_s=0.0 if online else draw(st.floats(0, 100)),
                auto=draw(st.booleans()), assigned=assigned, running=draw(st.sampled_from([assigned, (), (0,)])),
                room=draw(st.integers(1, 8)), speed_ms=draw(st.floats(0, 50)),
            )
        )  # fmt: skip
    return students, devices


def followed(devices: list[Candidate], plan: dict[str, Assignment]) -> list[Candidate]:
    """The fleet after everybody online has done as told."""
    return [
        replace(d, assigned=plan[d.name], running=plan[d.name] if d.online else d.running) if d.auto else d
        for d in devices
    ]


def settled(students: int, devices: list[Candidate]) -> list[Candidate]:
    for _ in range(2 * students + 4):
        after = followed(devices, assign(students, devices, PATIENCE_S, {}))
        if after == devices:
            return devices
        devices = after
    raise AssertionError("the assignment never settles")


@given(candidates())
def test_it_settles_and_covers_every_student_that_there_is_room_for(fleet: tuple[int, list[Candidate]]) -> None:
    students, devices = fleet
    devices = settled(students, devices)
    there = [d for d in devices if d.online or d.away_s < PATIENCE_S]
    covered = {s for d in there for s in (d.assigned if d.auto else d.running)}
    room_left = sum(d.room - len(d.assigned) for d in there if d.auto and d.online)
    assert room_left <= 0 or covered >= set(range(students))


@given(candidates())
def test_no_device_gets_more_than_it_has_room_for_and_fixed_ones_get_nothing(
    fleet: tuple[int, list[Candidate]],
) -> None:
    students, devices = fleet
    plan = assign(students, devices, PATIENCE_S, {})
    assert set(plan) == {d.name for d in devices if d.auto}
    for device in devices:
        if device.auto:
            assert len(plan[device.name]) <= device.room
            assert all(s < students for s in plan[device.name])


@given(candidates())
def test_a_student_is_only_taken_away_where_another_runs_it(fleet: tuple[int, list[Candidate]]) -> None:
    students, devices = fleet
    devices = [replace(d, room=8) for d in devices]
    plan = assign(students, devices, PATIENCE_S, {})
    for device in devices:
        if device.auto and device.online:
            for lost in set(device.assigned) - set(plan[device.name]):
                others = [d for d in devices if d is not device and d.online and lost in d.running]
                assert lost >= students or others


@given(candidates(), st.data())
def test_what_was_chosen_by_hand_stays(fleet: tuple[int, list[Candidate]], data: st.DataObject) -> None:
    students, devices = fleet
    automatic = [d.name for d in devices if d.auto]
    if automatic:
        name = data.draw(st.sampled_from(automatic))
        chosen = tuple(sorted(data.draw(st.sets(st.integers(0, students - 1)))))
        assert assign(students, devices, PATIENCE_S, {name: chosen})[name] == chosen


def device(name: str, assigned: Assignment, away_s: float = 0.0) -> Candidate:
    return Candidate(name, away_s == 0, away_s, True, assigned, assigned, room=8)


def test_a_short_absence_moves_nothing_and_a_long_one_is_healed() -> None:
    short = [device("a", (0,)), device("b", (1,), away_s=5)]
    assert assign(2, short, PATIENCE_S, {}) == {"a": (0,), "b": (1,)}
    long = [device("a", (0,)), device("b", (1,), away_s=11)]
    assert assign(2, long, PATIENCE_S, {}) == {"a": (0, 1), "b": (1,)}


def test_the_least_busy_and_then_the_fastest_device_takes_over() -> None:
    fleet = [device("a", (0, 3)), replace(device("b", (1,)), speed_ms=9.0), replace(device("c", (2,)), speed_ms=3.0)]
    assert assign(5, fleet, PATIENCE_S, {}) == {"a": (0, 3), "b": (1,), "c": (2, 4)}


def info(running: int) -> NodeInfo:
    one = StudentInfo(student=0, network="n", engine="e", precision="int8", artifact="a", width=1, selftest_error=0.0)
    return NodeInfo(
        session=1, agent_version="1", deployment="d", students=(one,) * running, machine="m", python="3"
    )  # fmt: skip


def telemetry(available_bytes: int, p95_ms: float | None) -> NodeTelemetry:
    return NodeTelemetry(
        session=1, uptime_s=1, cpu_percent=1, memory_rss_bytes=1, memory_available_bytes=available_bytes,
        frames_received=1, frames_answered=1, frames_dropped=0, messages_refused=0, queue_length=0,
        student_ms_p95=p95_ms,
    )  # fmt: skip


def test_room_is_bounded_by_memory_by_time_and_by_the_device_itself() -> None:
    plenty = 2**30
    assert room_of(info(1), telemetry(plenty, 10.0), 10**6, 0.5, most=4) == 4
    assert room_of(info(1), telemetry(plenty, 150.0), 10**6, 0.5, most=4) == 2
    assert room_of(info(1), telemetry(40 * 2**20, 10.0), 10**6, 0.5, most=4) == 2
    assert room_of(info(2), telemetry(0, 9999.0), 10**6, 0.5, most=4) == 2
    assert room_of(info(0), None, 10**6, 0.5, most=4) == 1
