"""The coordinator is killed between any two file operations of an update: it comes back with a whole deployment."""

import time

import pytest
from failing_disk import NEW, TINY, Steps, in_a_process_that_dies, kill

from coordinator.deployment_shelf import DeploymentShelf
from coordinator.rollout_record import RolloutPlan, RolloutRecord
from edge_agent.console.exit_codes import UserError
from edge_agent.console.worker import Worker
from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.update_messages import RollbackOrder, SignedContent

ENTRIES = TINY.manifest.files()


def update(shelf):
    """What the steward does with a shelf: fetch, begin a rollout, finish it, drop what is not needed."""
    worker, ended = Worker("test"), []

    def wait(count):
        while len(ended) < count:
            worker.deliver()
            time.sleep(0.0005)

    name, manifest = NEW
    shelf.disk.begin(name, manifest, SignedContent.of(manifest, ()), ENTRIES)
    for entry, _ in shelf.disk.missing(name, ENTRIES):
        shelf.disk.add_file(name, entry, TINY.read(entry))
    shelf.index([name])
    plan = RolloutPlan(rollout=5, target=name, previous=shelf.record.active, students=3)
    for phase in ("preparing", "switching"):
        shelf.change(worker, ended.append, rollout=RolloutRecord(plan=plan, phase=phase), last_rollout=5)
    wait(2)
    shelf.change(worker, ended.append, active=name, previous=plan.previous, rollout=None)
    shelf.drop_others(worker, ended.append, name, plan.previous)
    wait(4)
    worker.close()
    assert ended == [None] * 4


def prepared(folder):
    shelf = DeploymentShelf(folder)
    shelf.adopt(TINY, 1)
    return shelf


def check_whole(shelf):
    assert shelf.record.active in (TINY.id, NEW[0])
    assert shelf.holds(shelf.record.active)
    for entry in ENTRIES:
        assert shelf.disk.open(shelf.record.active).read(entry) == TINY.read(entry)
    if shelf.record.rollout is not None:  # it goes on, so both must be there
        assert shelf.holds(shelf.record.rollout.plan.target)
        assert shelf.holds(shelf.record.rollout.plan.previous)
    if shelf.record.previous:
        assert shelf.holds(shelf.record.previous)


def test_killed_at_every_file_operation_the_coordinator_holds_a_whole_deployment(tmp_path):
    prepared(tmp_path / "whole")
    steps = Steps()
    update(DeploymentShelf(tmp_path / "whole", steps))
    assert steps.count > 25
    for n in range(1, steps.count + 1):
        folder = tmp_path / str(n)
        prepared(folder)
        if not in_a_process_that_dies(lambda f=folder, at=n: update(DeploymentShelf(f, Steps(at, kill)))):
            pytest.fail(f"operation {n} did not come")
        after = DeploymentShelf(folder)
        check_whole(after)
        update(after)
        check_whole(DeploymentShelf(folder))
        assert DeploymentShelf(folder).record.active == NEW[0]


def test_a_damaged_record_stops_the_coordinator_with_one_line(tmp_path):
    prepared(tmp_path)
    (tmp_path / "record.json").write_bytes(b"{")
    with pytest.raises(UserError, match=r"record\.json.*restore it, or start a new store"):
        DeploymentShelf(tmp_path)


def test_a_deployment_that_is_not_kept_can_not_be_gone_back_to(tmp_path):
    shelf = prepared(tmp_path)
    order = RollbackOrder(deployment="f" * 16, undoes_version=1, serial=1, expires=2**40).to_bytes()
    with pytest.raises(ManifestError, match="not kept here; the previous one is none"):
        shelf.kept_manifest(SignedContent.of(order, ()))
