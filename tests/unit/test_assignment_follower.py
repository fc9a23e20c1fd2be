"""Assigned students are loaded beside the loop; a fake stands at the interpreter's seam."""

from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent.assignment_follower import AssignmentFollower
from edge_agent.console.exit_codes import UserError
from edge_agent.console.worker import Done, Job
from edge_agent.protocol.fleet_messages import NodeAssignment
from edge_agent.protocol.link import Message

TOPIC = "nonn/1/home/node/pi-1/assignment"


class Slot:
    def __init__(self, index: int, deployment: str) -> None:
        self.student = SimpleNamespace(index=index)
        self.deployment = deployment
        self.open = True
        self.runtime = SimpleNamespace(close=self._close)

    def _close(self) -> None:
        self.open = False


class Device:
    """The follower, a worker that works when told, and what the loop was given."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Job, Done]] = []
        self.opened: list[Slot] = []
        self.broken: set[int] = set()
        self.deployment = "old"
        self.used: list[Slot] = []
        self.follower = AssignmentFollower(TOPIC, self._open, self._use, 3, lambda *job: self.jobs.append(job))

    def _open(self, index: int) -> Any:
        if index in self.broken:
            raise UserError(f"student {index}: damaged")
        self.opened.append(Slot(index, self.deployment))
        return self.opened[-1]

    def _use(self, slots: Any) -> None:
        assert all(slot.open for slot in slots)
        self.used = list(slots)

    def assign(self, *students: int) -> None:
        payload = NodeAssignment(students=students).encode()
        assert self.follower.receive(Message(TOPIC, payload, retain=True))

    def work(self) -> None:
        while self.jobs:
            job, done = self.jobs.pop(0)
            done(job())

    @property
    def running(self) -> list[int]:
        return [slot.student.index for slot in self.used]

    @property
    def open(self) -> int:
        return sum(slot.open for slot in self.opened)


@pytest.fixture
def device() -> Device:
    return Device()


def test_the_loop_goes_on_with_the_old_students_while_new_ones_load(device: Device) -> None:
    device.assign(0)
    device.work()
    device.assign(1, 2)
    assert device.running == [0]
    assert all(slot.open for slot in device.used)
    device.work()
    assert device.running == [1, 2]
    assert device.open == 2


def test_the_newest_assignment_wins_whatever_came_while_loading(device: Device) -> None:
    device.assign(0)
    device.assign(1)
    device.assign(2, 0)
    assert len(device.jobs) == 1
    device.work()
    assert device.running == [0, 2]
    assert device.open == 2


def test_the_same_assignment_again_loads_nothing(device: Device) -> None:
    device.assign(0, 1)
    device.work()
    device.assign(1, 0)
    assert not device.jobs


def test_what_can_not_be_loaded_is_told_and_tried_again_when_asked(device: Device) -> None:
    device.broken = {1}
    device.assign(0, 1)
    device.work()
    assert (device.running, device.follower.refused) == ([0], (1,))
    device.broken = set()
    device.assign(0, 1)
    device.work()
    assert (device.running, device.follower.refused) == ([0, 1], ())


def test_students_of_a_deployment_that_was_replaced_meanwhile_do_not_answer(device: Device) -> None:
    device.assign(0, 1)
    job, done = device.jobs.pop()
    loaded = job()
    device.deployment = "new"
    device.follower.replace([])
    done(loaded)
    device.work()
    assert [(slot.student.index, slot.deployment) for slot in device.used] == [(0, "new"), (1, "new")]
    assert device.open == 2


def test_an_update_before_any_assignment_keeps_what_it_brought(device: Device) -> None:
    device.follower.replace([Slot(0, "new")])  # type: ignore[list-item]
    assert not device.jobs


def test_no_more_than_the_device_is_set_to(device: Device) -> None:
    device.assign(0, 1, 2, 3, 4)
    device.work()
    assert device.running == [0, 1, 2]
