"""The rollout machine under any interleaving of devices, frames, lost messages and coordinator restarts."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.rollout import MARGIN_S, Rollout
from coordinator.rollout_record import DeviceView, RolloutPlan, RolloutRecord
from coordinator.source_clock import SourceClock
from edge_agent.protocol.update_messages import CanaryReport, NodeUpdate

OLD, NEW = "0" * 16, "1" * 16
STUDENTS = 3
NAMES = ("pi-0", "pi-1", "pi-2", "spare-0")
STUDENT_OF = {name: int(name[-1]) for name in NAMES}


def plan(**changes):
    return RolloutPlan(rollout=7, target=NEW, previous=OLD, students=STUDENTS, **changes)


def view(state="active", online=True, student=0, target=None, installed=OLD, error="", rollout=7):
    update = NodeUpdate(
        state=state, rollout=rollout, target=target, installed=installed, students=(student,), error=error
    )
    return DeviceView(online, (student,), update)


def fleet(**states):
    return {
        name: view(
            **({"student": STUDENT_OF[name]} | states.get(name.replace("-", "_"), {"state": "ready", "target": NEW}))
        )
        for name in NAMES
    }


def run(rollout, sources, devices, start, seconds, frames=True):
    """Let time pass: two sources at 15 frames/s, a look at the fleet every tenth of a second."""
    for tick in range(int(seconds * 10)):
        now = start + tick / 10
        if frames:
            for source in ("door", "yard"):
                sources.seen(source, int(now * 15), now)
        rollout.step(devices(now) if callable(devices) else devices, now)
    return start + seconds


def begin(**changes):
    sources = SourceClock()
    return Rollout.begin(plan(**changes), sources, 0.0), sources


def test_all_ready_switches_ahead_of_every_source_and_completes():
    rollout, sources = begin()
    now = run(rollout, sources, fleet(), 0.0, 1.5)
    assert rollout.phase == "switching"
    message = rollout.switch
    assert not message.complete
    assert set(message.from_frames) == {"door", "yard"}
    assert min(message.from_frames.values()) >= sources.last_frame("door") + 14 * MARGIN_S - 15 * 0.6
    run(rollout, sources, fleet(), now, 8.0)
    assert rollout.phase == "complete"
    assert rollout.switch.complete
    assert rollout.switch.deployment == NEW


def test_a_student_without_a_ready_device_holds_the_switch_and_then_fails_it():
    rollout, sources = begin(timeout_s=20.0)
    devices = fleet(pi_2={"state": "downloading", "target": NEW})
    now = run(rollout, sources, devices, 0.0, 15.0)
    assert rollout.phase == "preparing"
    assert rollout.waiting_for(devices) == (2,)
    run(rollout, sources, devices, now, 10.0)
    assert rollout.phase == "failed"
    assert "student 2" in rollout.record.error
    assert rollout.switch.deployment == OLD
    assert rollout.desired == (OLD, None)


def test_a_failed_replica_does_not_stop_the_others_but_a_failed_student_does():
    rollout, sources = begin()
    run(rollout, sources, fleet(spare_0={"state": "failed", "target": NEW, "error": "no space left"}), 0.0, 12.0)
    assert rollout.phase == "complete"
    rollout, sources = begin()
    run(rollout, sources, fleet(pi_1={"state": "failed", "target": NEW, "error": "no space left"}), 0.0, 3.0)
    assert rollout.phase == "failed"
    assert rollout.record.error == "student 1: pi-1: no space left"


def test_an_old_failure_of_another_rollout_is_not_held_against_this_one():
    rollout, sources = begin()
    run(rollout, sources, fleet(pi_1={"state": "failed", "target": NEW, "rollout": 6}), 0.0, 5.0)
    assert rollout.phase == "preparing"


def test_a_student_that_crashes_in_its_trial_takes_the_switch_back():
    rollout, sources = begin(trial_s=10.0)
    now = run(rollout, sources, fleet(), 0.0, 4.0)
    assert rollout.phase == "switching"
    first = dict(rollout.record.from_frames)
    fallen = fleet(pi_1={"state": "rolled_back", "target": NEW, "error": "ended 3 times"})
    now = run(rollout, sources, fallen, now, 0.5)
    assert rollout.phase == "reverting"
    back = rollout.switch
    assert back.deployment == OLD
    assert back.previous == NEW
    assert all(back.from_frames[source] > first[source] for source in first)
    run(rollout, sources, fallen, now, 6.0)
    assert rollout.phase == "failed"
    assert "ended 3 times" in rollout.switch.reason
    assert rollout.switch.complete


def test_a_canary_is_promoted_or_stopped_by_what_it_measured():
    for agreement, ratio, phase in ((0.99, 1.1, "preparing"), (0.5, 1.0, "failed"), (1.0, 3.0, "failed")):
        rollout, sources = begin(canaries=("spare-0",))
        devices = fleet(spare_0={"state": "ready", "target": NEW})
        assert rollout.desired == (NEW, ("spare-0",))
        run(rollout, sources, devices, 0.0, 2.0)
        assert rollout.phase == "canary"
        rollout.canary = CanaryReport(frames=100, agreement=agreement, latency_ratio=ratio, new_ms_p95=1, old_ms_p95=1)
        rollout.step(devices, 2.0)
        assert rollout.phase == phase, rollout.record.error


def test_idle_and_new_sources_do_not_stop_a_switch():
    rollout, sources = begin()
    sources.seen("asleep", 500, -100.0)
    now = run(rollout, sources, fleet(), 0.0, 1.5)
    assert rollout.record.from_frames["asleep"] == 501
    sources.seen("late", 10, now)
    sources.seen("late", 11, now + 0.1)
    run(rollout, sources, fleet(), now + 0.1, 0.3)
    assert rollout.record.from_frames["late"] > 11
    run(rollout, sources, fleet(), now + 0.5, 12.0)
    assert rollout.phase == "complete"


def test_ids_that_count_microseconds_are_switched_as_far_ahead():
    clock = SourceClock()
    for tick in range(30):
        clock.seen("cam", 1_000_000 + tick * 66_667, tick / 15)
    assert 900_000 < clock.frame_after("cam", 1.0, 29 / 15) - clock.last_frame("cam") < 1_200_000


@pytest.mark.parametrize("frames_per_s", [1, 15])
def test_ids_that_leap_at_a_restart_of_their_source_do_not_put_the_switch_into_tomorrow(frames_per_s):
    clock, now = SourceClock(), 0.0
    for first_id in (1_795_396_000_000, 1_795_396_900_000):
        for count in range(3 * frames_per_s):
            clock.seen("cam", first_id + count, now)
            now += 1 / frames_per_s
            ahead = clock.frame_after("cam", 1.0, now)
            if count and ahead is not None:
                assert 0 < ahead - clock.last_frame("cam") <= 20 + 3 * frames_per_s


@pytest.mark.parametrize("period_s", [0.5, 1.0, 1.9, 2.0, 2.02, 2.04, 2.1, 2.5, 3.0, 3.9])
def test_a_slow_source_holds_up_no_switch(period_s):
    """The coordinator looks when a frame comes, when it is answered, and every quarter of a second after."""
    clock = SourceClock()
    for count in range(2):
        clock.seen("cam", int(count * period_s * 1e6), count * period_s)
    for tick in range(int((period_s - 0.3) * 4) + 1):
        now = period_s + (tick and 0.3 + tick / 4)
        if now <= 2 * period_s and clock.quiet_s("cam", now) <= 2.0:
            assert clock.frame_after("cam", 1.0, now) >= (now + 1.0) * 1e6


class AnyOrder(RuleBasedStateMachine):
    """Devices follow the retained messages late, crash and come back; the coordinator restarts from its record."""

    @initialize(canaries=st.sampled_from([(), ("spare-0",)]))
    def start(self, canaries):
        self.now, self.frame = 0.0, 0
        self.sources = SourceClock()
        self.rollout = Rollout.begin(plan(canaries=canaries, timeout_s=60.0), self.sources, self.now)
        self.devices = {n: view(student=STUDENT_OF[n]) for n in NAMES}
        self.promised: dict[str, int] = {}
        self.phases = [self.rollout.phase]

    def look(self):
        before = self.rollout.phase
        if self.rollout.step(self.devices, self.now):
            RolloutRecord.model_validate_json(self.rollout.record.model_dump_json())
        if self.rollout.phase != before:
            self.phases.append(self.rollout.phase)
            if self.rollout.phase == "switching":
                # Nobody is told to switch before every student can answer.
                assert not self.rollout.waiting_for(self.devices)

    @rule(tenths=st.integers(1, 40), frames=st.booleans())
    def time_passes(self, tenths, frames):
        for _ in range(tenths):
            self.now += 0.1
            if frames:
                self.frame += 2
                self.sources.seen("door", self.frame, self.now)
            self.look()

    @rule(name=st.sampled_from(NAMES))
    def gets_ready(self, name):
        wanted, only = self.rollout.desired
        if wanted == NEW and (only is None or name in only) and self.devices[name].online:
            self.devices[name] = view("ready", student=STUDENT_OF[name], target=NEW)
        self.look()

    @rule(name=st.sampled_from(NAMES))
    def answers_with_it(self, name):
        if self.rollout.switch.deployment == NEW and self.devices[name].update.state == "ready":
            self.devices[name] = view("active", student=STUDENT_OF[name], target=NEW, installed=NEW)
        self.look()

    @rule(name=st.sampled_from(NAMES), state=st.sampled_from(["failed", "rolled_back"]))
    def fails(self, name, state):
        self.devices[name] = view(state, student=STUDENT_OF[name], target=NEW, error="broken")
        self.look()

    @rule(name=st.sampled_from(NAMES))
    def goes_dark_or_comes_back(self, name):
        old = self.devices[name]
        self.devices[name] = DeviceView(not old.online, old.students, old.update)
        self.look()

    @rule(agreement=st.floats(0, 1), ratio=st.floats(0.1, 5))
    def canary_measures(self, agreement, ratio):
        if self.rollout.phase == "canary":
            self.rollout.canary = CanaryReport(frames=100, agreement=agreement, latency_ratio=ratio)
        self.look()

    @rule()
    def operator_stops(self):
        before = self.rollout.phase
        self.rollout.stop("operator", self.now)
        if self.rollout.phase != before:
            self.phases.append(self.rollout.phase)

    @rule()
    def coordinator_dies_and_comes_back(self):
        switch, desired, schedule = self.rollout.switch, self.rollout.desired, self.rollout.schedule
        record = RolloutRecord.model_validate_json(self.rollout.record.model_dump_json())
        self.sources = SourceClock()
        self.rollout = Rollout(record, self.sources, self.now)
        assert (self.rollout.switch, self.rollout.desired, self.rollout.schedule) == (switch, desired, schedule)

    @invariant()
    def promises_are_kept(self):
        """The frame announced for a source never changes, and no frame is expected from two deployments."""
        record = self.rollout.record
        for source, frame in self.promised.items():
            assert record.from_frames.get(source) == frame
        self.promised |= record.from_frames

    @invariant()
    def devices_and_coordinator_agree_on_every_frame(self):
        switch, schedule = self.rollout.switch, self.rollout.schedule
        for frame in range(0, self.frame + 60, 7):
            expected = schedule.deployment_for("door", frame)
            assert expected in (OLD, NEW)
            if switch.complete or frame >= switch.from_frames.get("door", frame + 1):
                assert expected == switch.deployment

    @invariant()
    def phases_follow_the_diagram(self):
        allowed = {
            ("canary", "preparing"), ("canary", "failed"), ("preparing", "switching"), ("preparing", "failed"),
            ("switching", "complete"), ("switching", "reverting"), ("reverting", "failed"),
        }  # fmt: skip
        assert all(pair in allowed for pair in zip(self.phases, self.phases[1:], strict=False))

    @precondition(lambda self: self.rollout.done)
    @rule()
    def the_end_is_the_end(self):
        record = self.rollout.record
        for _ in range(50):
            self.now += 1.0
            self.look()
        assert self.rollout.record == record

    def teardown(self):
        if not hasattr(self, "rollout"):
            return
        for _ in range(3000):  # left alone, with devices as they are, every rollout ends
            self.now += 0.1
            self.frame += 2
            self.sources.seen("door", self.frame, self.now)
            self.look()
        assert self.rollout.done, self.rollout.record


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
