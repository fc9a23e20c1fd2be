"""The roster: stale deaths are ignored, births always count, memory is bounded."""

from coordinator.roster import Roster
from edge_agent.protocol.status import NodeInfo, NodeState, StudentInfo

D = "0123456789abcdef"


def birth(session: int) -> NodeState:
    return NodeState(state="online", session=session)


def death(session: int) -> NodeState:
    return NodeState(state="offline", session=session)


def info(*students: int, deployment: str = D) -> NodeInfo:
    parts = tuple(
        StudentInfo(student=s, network="n", engine="e", precision="int8", artifact="a", width=1, selftest_error=0.0)
        for s in students
    )
    return NodeInfo(session=1, agent_version="0", deployment=deployment, students=parts, machine="m", python="3")


def online(roster: Roster) -> list[str]:
    return [device.name for device in roster.devices if device.online]


def test_birth_death_and_return() -> None:
    roster = Roster()
    roster.state("pi", birth(5))
    assert online(roster) == ["pi"]
    roster.state("pi", death(5))
    assert online(roster) == []
    roster.state("pi", birth(6))
    assert online(roster) == ["pi"]


def test_the_death_of_an_older_session_is_stale() -> None:
    roster = Roster()
    roster.state("pi", birth(6))
    roster.state("pi", death(5))
    assert online(roster) == ["pi"]


def test_a_device_whose_clock_went_back_is_alive_again() -> None:
    roster = Roster()
    roster.state("pi", birth(1_000_000))
    roster.state("pi", death(1_000_000))
    roster.state("pi", birth(3))  # no battery clock, no network time yet
    assert online(roster) == ["pi"]
    roster.state("pi", death(3))
    assert online(roster) == []


def test_holders_are_online_and_run_the_deployment() -> None:
    roster = Roster()
    for name, students, deployment in (("a", (0, 1), D), ("b", (1,), D), ("c", (2,), "f" * 16)):
        roster.state(name, birth(1))
        roster.info(name, info(*students, deployment=deployment))
    roster.state("b", death(1))
    assert [device.name for device in roster.holders(D, 1)] == ["a"]
    assert roster.missing(D, 3) == (2,)
    roster.forget("a")
    assert roster.missing(D, 3) == (0, 1, 2)


def test_a_flood_of_names_takes_no_memory() -> None:
    roster = Roster(max_devices=10)
    for number in range(1000):
        roster.state(f"ghost-{number}", birth(1))
        roster.info(f"ghost-{number}", info(0))
    assert len(roster.devices) == 10
