"""Whole fleets on a virtual clock: whatever fails, every opened frame gets exactly one, right answer."""

from pathlib import Path

import numpy as np
import pytest
from simulated_broker import LinkFaults
from simulator import Fleet

from coordinator.feature_merger import COMPARED_FRAMES, REMEMBERED_FRAMES
from edge_agent.app import AgentApp
from edge_agent.protocol.pack import decode_pack


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(seed=1, folder=tmp_path)


def start(fleet: Fleet, students: tuple[str, ...] = ("0", "1", "2"), **settings: object) -> None:
    fleet.start_coordinator(**settings)
    for number, student in enumerate(students):
        fleet.start_agent(f"pi-{number}", student)
    fleet.run(3)


def assignments(fleet: Fleet) -> dict[str, tuple[int, ...]]:
    roster = fleet.nodes["coordinator"].app.roster
    return {device.name: device.students for device in roster.devices if device.online}


def test_a_healthy_fleet_answers_every_frame_completely(fleet: Fleet) -> None:
    start(fleet)
    fleet.stream("door", 20, 5)
    fleet.stream("yard", 7, 5, live=True)
    fleet.run(7)
    assert fleet.check() == {"complete": 135}


def test_without_a_device_answers_are_degraded_and_name_the_missing_student(fleet: Fleet) -> None:
    start(fleet)
    fleet.kill("pi-1")
    fleet.stream("door", 20, 5)
    fleet.run(7)
    assert fleet.check() == {"degraded": 100}
    assert {answers[0].missing for answers in fleet.answers.values()} == {(1,)}


def test_a_student_known_to_be_away_is_not_waited_for(fleet: Fleet) -> None:
    start(fleet)
    fleet.kill("pi-1")
    fleet.run(1)
    fleet.stream("door", 20, 1)
    fleet.run(3)
    assert max(answers[0].latency_ms.total for answers in fleet.answers.values()) < 100  # the deadline is 500


def test_a_stopped_device_costs_one_deadline_a_frame_and_later_less(fleet: Fleet) -> None:
    start(fleet)
    fleet.stream("door", 20, 5, live=True)
    fleet.run(6)
    fleet.nodes["pi-2"].stopped = True
    fleet.stream("door", 20, 5, live=True, first_id=1000)
    fleet.run(6)
    fleet.check()
    after = [a[0] for (_, frame_id), a in fleet.answers.items() if frame_id >= 1000]
    assert {answer.result for answer in after} == {"degraded"}
    assert max(answer.latency_ms.total for answer in after) <= 60  # learned from 20 ms answers; its floor is 50 ms


def test_with_no_device_frames_are_abandoned_with_a_reason(fleet: Fleet) -> None:
    start(fleet, students=())
    fleet.stream("door", 10, 2)
    fleet.run(4)
    assert fleet.check() == {"abandoned": 20}
    assert {answers[0].reason for answers in fleet.answers.values()} == {"deadline"}


def test_a_fleet_on_auto_covers_all_students_and_stays_as_it_is(fleet: Fleet) -> None:
    start(fleet, ("auto", "auto", "auto"))
    first = assignments(fleet)
    assert sorted(first.values()) == [(0,), (1,), (2,)]
    fleet.kill("coordinator")
    fleet.start_coordinator()
    fleet.run(5)
    assert assignments(fleet) == first


def test_a_lost_device_is_healed_and_its_return_spreads_the_load_again(fleet: Fleet) -> None:
    start(fleet, ("auto", "auto", "auto"))
    fleet.run(12)  # telemetry tells how much room there is
    fleet.kill("pi-0")
    fleet.run(10)
    healed = assignments(fleet)
    assert sorted(s for students in healed.values() for s in students) == [0, 1, 2]
    fleet.stream("door", 20, 2)
    fleet.run(4)
    assert fleet.check() == {"complete": 40}
    fleet.start_agent("pi-0", "auto")
    fleet.run(5)
    assert sorted(assignments(fleet).values()) == [(0,), (1,), (2,)]


def test_while_students_move_no_answer_is_degraded(fleet: Fleet) -> None:
    start(fleet, ("auto", "auto"))
    fleet.run(12)
    assert sorted(s for students in assignments(fleet).values() for s in students) == [0, 1, 2]
    fleet.stream("door", 20, 8)
    fleet.start_agent("pi-2", "auto")
    fleet.run(10)
    assert sorted(assignments(fleet).values()) == [(0,), (1,), (2,)]
    assert fleet.check() == {"complete": 160}


def test_a_killed_coordinator_answers_what_it_had_opened(fleet: Fleet) -> None:
    start(fleet)
    for name in ("pi-0", "pi-1", "pi-2"):
        fleet.nodes[name].student_s = 0.4
    fleet.stream("door", 4, 1)
    fleet.run(0.3)
    fleet.kill("coordinator")
    fleet.run(2)
    fleet.start_coordinator()
    fleet.run(3)
    assert fleet.check()["abandoned"] == 2
    assert {a[0].reason for a in fleet.answers.values() if a[0].result == "abandoned"} == {"restart"}


@pytest.mark.parametrize("keep_retained", [True, False])
def test_after_a_broker_restart_everybody_is_known_again(fleet: Fleet, keep_retained: bool) -> None:
    start(fleet)
    fleet.stream("door", 20, 10)
    fleet.run(2)
    fleet.restart_broker(1.0, keep_retained)
    fleet.run(11)
    fleet.check()
    assert set(assignments(fleet)) == {"pi-0", "pi-1", "pi-2"}
    states = {t: m.payload for t, m in fleet.broker.retained.items() if t.endswith("/state")}
    assert len(states) == 4
    assert all(b'"online"' in payload for payload in states.values())
    last = max(fleet.answers)
    assert fleet.answers[last][0].result == "complete"


def test_an_early_answer_is_refined_by_the_one_answer(fleet: Fleet) -> None:
    start(fleet, early_answer=0.5)
    fleet.nodes["pi-2"].student_s = 0.1
    fleet.stream("door", 5, 4)
    fleet.run(6)
    assert fleet.check() == {"complete": 20}
    assert fleet.early
    assert all(2 not in early.present and max(early.probabilities) >= 0.5 for early in fleet.early)
    counts = fleet.nodes["coordinator"].app.counts
    corrected = sum(
        early.class_index != fleet.answers[early.source, early.frame_id][0].class_index for early in fleet.early
    )
    assert counts["early_answers"] == len(fleet.early)
    assert counts["early_answers_corrected"] == corrected


def test_of_two_replicas_the_first_answers_and_a_liar_is_counted(fleet: Fleet) -> None:
    start(fleet, ("0", "1", "2", "0"))
    fleet.nodes["pi-3"].student_s = 0.05
    fleet.stream("door", 10, 2)
    fleet.run(3)
    counts = fleet.nodes["coordinator"].app.counts
    assert fleet.check() == {"complete": 20}
    assert counts["features_replica"] == 20
    assert counts["replicas_disagree"] == 0
    liar = fleet.nodes["pi-3"].app.lanes.current.slots[0].runtime
    liar.student = 77
    fleet.stream("door", 10, 2, first_id=500)
    fleet.run(3)
    assert fleet.check() == {"complete": 40}
    assert counts["replicas_disagree"] == 20


def test_a_student_that_gives_no_numbers_is_left_out_and_counted(fleet: Fleet) -> None:
    start(fleet)
    agent = fleet.nodes["pi-1"].app
    assert isinstance(agent, AgentApp)
    runtime = agent.lanes.current.slots[0].runtime
    runtime.quantization = None  # a float student whose memory has gone bad
    runtime.run = lambda _image: np.full(runtime.width, np.nan, np.float32)
    fleet.stream("door", 20, 1)
    fleet.run(3)
    assert fleet.check() == {"degraded": 20}
    assert {answers[0].missing for answers in fleet.answers.values()} == {(1,)}
    assert agent.counts.refused == 20


def test_memory_is_bounded_by_frames_in_flight_whatever_arrives(fleet: Fleet) -> None:
    start(fleet, students=(), max_open_frames=50)
    for number in range(6000):
        fleet.send_frame(f"source-{number % 300}", number)
    fleet.run(0.2)
    desk = fleet.nodes["coordinator"].app.desk
    assert desk.open_frames <= 50
    fleet.run(5)
    merger = fleet.nodes["coordinator"].app._desk
    assert desk.open_frames == 0
    fleet.check()
    assert merger.next_deadline() is None
    assert COMPARED_FRAMES < REMEMBERED_FRAMES < 6000


def test_a_frame_sent_again_gets_the_same_answer_again_and_is_not_counted_twice(fleet: Fleet) -> None:
    start(fleet)
    fleet.stream("door", 20, 1)
    fleet.run(3)
    counts = dict(fleet.nodes["coordinator"].app.desk.counts)
    fleet.stream("door", 20, 1)
    fleet.run(3)
    assert fleet.check() == {"complete": 20}  # and equal answers
    assert {len(given) for given in fleet.answers.values()} == {2}
    now = fleet.nodes["coordinator"].app.desk.counts
    assert now["frames_repeated"] == 20
    assert {name: now[name] for name in counts if name.startswith("frames_")} == {
        name: count for name, count in counts.items() if name.startswith("frames_")
    }


def test_packs_are_answered_as_their_frames_would_be_and_only_they_in_packs(fleet: Fleet) -> None:
    start(fleet)
    carried: dict[str, list[int]] = {"feature": [], "prediction": []}
    fleet.broker.taps.append(lambda m: carried.get(m.topic.split("/")[3], []).append(len(decode_pack(m.payload))))
    fleet.send_pack("door", range(1, 13))
    fleet.send_frame("door", 13)
    fleet.stream("yard", 20, 0.2)
    fleet.run(2)
    assert fleet.check() == {"complete": 17}
    assert fleet.nodes["coordinator"].app.counts["feature_bytes"] > 0
    assert sum(carried["feature"]) == 3 * 17
    assert sum(carried["prediction"]) == 17
    assert max(carried["feature"]) > 1 < max(carried["prediction"])
    assert carried["prediction"].count(1) >= 5  # of the door's last frame and the yard's
    carried["prediction"].clear()
    fleet.send_frame("door", 5)  # sent again alone: answered again, alone
    fleet.run(1)
    assert carried["prediction"] == [1]


def test_a_pack_without_a_device_is_degraded_at_the_deadline(fleet: Fleet) -> None:
    start(fleet)
    fleet.nodes["pi-1"].stopped = True
    fleet.send_pack("door", range(1, 9))
    fleet.run(3)
    assert fleet.check() == {"degraded": 8}


def test_what_a_killed_coordinator_left_open_is_answered_once_whoever_asks_again(fleet: Fleet) -> None:
    start(fleet, students=())
    fleet.stream("door", 20, 0.3)
    fleet.run(0.4)
    fleet.kill("coordinator")
    fleet.start_coordinator()
    fleet.start_agent("pi-0", "0,1,2")
    fleet.stream("door", 20, 0.3)
    fleet.run(4)
    assert fleet.check() == {"abandoned": 6}
    assert {answers[0].reason for answers in fleet.answers.values()} == {"restart"}
    assert {len(given) for given in fleet.answers.values()} == {2}


@pytest.mark.parametrize("seed", range(12))
def test_random_faults(seed: int, tmp_path: Path) -> None:
    """Losses, delays, repeats, reordering, kills, stops, cuts, broker restarts; the seed says which and when."""
    fleet = Fleet(seed, tmp_path)
    chance = fleet.random
    start(fleet, ("auto",) * chance.randint(3, 5))
    for node in fleet.nodes.values():
        node.link.faults = LinkFaults(0.001, chance.random() * 0.05, chance.random() * 0.2, chance.random() * 0.3)
    fleet.stream("door", 20, 30)
    fleet.stream("yard", 9, 30, live=True)
    for number in range(60):
        ids = range(1000 + 8 * number, 1008 + 8 * number)
        fleet.at(fleet.now + number / 2, lambda ids=ids: fleet.send_pack("files", ids))
    for _ in range(12):
        fleet.run(chance.random() * 3)
        _break_something(fleet)
    fleet.run(40)
    results = fleet.check()
    assert sum(results.values()) == len(fleet.opened) > 300, f"seed {seed}: {results}"
    for node in fleet.nodes.values():
        node.link.faults = LinkFaults()
    fleet.stream("door", 20, 2, first_id=100_000)
    fleet.run(5)
    fleet.check()
    last = [a[0].result for (_, frame_id), a in fleet.answers.items() if frame_id >= 100_000]
    assert last == ["complete"] * 40, f"seed {seed}: not whole again: {last}"


def _break_something(fleet: Fleet) -> None:
    chance = fleet.random
    agents = [name for name in fleet.nodes if name != "coordinator"]
    match chance.choice(["kill", "stop", "cut", "coordinator", "broker"]):
        case "kill" if agents:
            name = chance.choice(agents)
            fleet.kill(name)
            fleet.at(fleet.now + chance.random() * 8, lambda: fleet.start_agent(name, "auto"))
        case "stop" if agents:
            node = fleet.nodes[chance.choice(agents)]
            node.stopped = True
            fleet.at(fleet.now + chance.random() * 4, lambda: setattr(node, "stopped", False))
        case "cut" if agents:
            link = fleet.nodes[chance.choice(agents)].link
            link.cut = True
            link.lose("cut")
            fleet.at(fleet.now + chance.random() * 4, lambda: setattr(link, "cut", False))
        case "coordinator" if "coordinator" in fleet.nodes and fleet.broker.up:
            # An answer on its way to a broker that dies in the same instant as its sender is gone: two faults at once.
            fleet.run(0.1)
            fleet.kill("coordinator")
            fleet.run(0.1)
            fleet.at(fleet.now + chance.random() * 2, fleet.start_coordinator)
        case "broker":
            fleet.restart_broker(chance.random() * 2, keep_retained=chance.random() < 0.5)
