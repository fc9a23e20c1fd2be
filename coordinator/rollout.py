"""The two-phase update of a site as a state machine: snapshots of the fleet and time in, what to publish out. Pure.

    canary -> preparing -> switching -> complete
       |          |            |
       +-> failed <+- reverting <+

The machine does not send anything. `desired`, `switch` and `schedule` say what holds now; the shell writes the record
to disk first and publishes after that, so a coordinator that dies anywhere goes on where it was.
"""

from collections.abc import Mapping

from coordinator.rollout_record import DeviceView, Phase, RolloutPlan, RolloutRecord
from coordinator.source_clock import SourceClock
from edge_agent.protocol.switch_schedule import SwitchSchedule, SwitchStep
from edge_agent.protocol.update_messages import CanaryReport, NodeUpdate, SwitchMessage

# A switch must be with every device before its frame: a second is 20 times what a busy Wi-Fi needs.
MARGIN_S = 1.0
OBSERVE_S = 1.0  # a coordinator that has just started does not know its sources yet
SETTLE_S = 1.5  # the last frames before the switch are answered, whatever their deadline
STRAGGLER_S = 20.0  # replicas that are not ready hold up a switch no longer
OFFLINE_PATIENCE_S = 60.0  # a device that went dark during the trial is waited for so long


class Rollout:
    """One rollout. Call `step` often with the fleet as it is; it changes phase by itself."""

    def __init__(self, record: RolloutRecord, sources: SourceClock, now: float) -> None:
        self.record = record
        self.canary: CanaryReport | None = None
        self._sources = sources
        self._started = self._phase_since = now
        self._quorum_since: float | None = None
        self._past_since: float | None = None

    @classmethod
    def begin(cls, plan: RolloutPlan, sources: SourceClock, now: float) -> "Rollout":
        """A new rollout; with canaries they go first."""
        return cls(RolloutRecord(plan=plan, phase="canary" if plan.canaries else "preparing"), sources, now)

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return self.record.phase

    @property
    def done(self) -> bool:
        """Nothing will change any more."""
        return self.phase in ("complete", "failed")

    @property
    def active(self) -> str:
        """What answers once everything in flight is answered."""
        return self.record.plan.target if self.phase == "complete" else self.record.plan.previous

    @property
    def desired(self) -> tuple[str, tuple[str, ...] | None]:
        """(deployment that devices shall prepare, only these devices or None for all)."""
        plan = self.record.plan
        if self.phase == "failed":
            return plan.previous, None
        return plan.target, plan.canaries if self.phase == "canary" else None

    @property
    def switch(self) -> SwitchMessage:
        """What devices shall answer with."""
        plan, phase = self.record.plan, self.phase
        target, previous, steps = plan.target, plan.previous, {}
        complete = phase not in ("switching", "reverting")
        if phase == "switching":
            steps = self.record.from_frames
        elif phase == "reverting":
            target, previous, steps = previous, target, self.record.back_from_frames
        elif phase != "complete":
            target, previous = previous, target
        return SwitchMessage(
            rollout=plan.rollout, deployment=target, previous=previous, complete=complete,
            from_frames=steps, reason=self.record.error,
        )  # fmt: skip

    @property
    def schedule(self) -> SwitchSchedule:
        """Which deployment is expected to answer which frame."""
        plan, record = self.record.plan, self.record
        if self.phase == "switching":
            return SwitchSchedule(plan.previous, (SwitchStep(plan.target, record.from_frames),))
        if self.phase == "reverting":
            back = SwitchStep(plan.previous, record.back_from_frames)
            return SwitchSchedule(plan.previous, (SwitchStep(plan.target, record.from_frames), back))
        return SwitchSchedule(self.active)

    def waiting_for(self, fleet: Mapping[str, DeviceView]) -> tuple[int, ...]:
        """Students of the target that no online device is ready for."""
        return tuple(i for i in range(self.record.plan.students) if not self._ready(fleet, i))

    def stop(self, reason: str, now: float) -> None:
        """An operator's stop, or a canary's: back to what answered before."""
        if self.phase in ("canary", "preparing"):
            self._enter("failed", now, error=reason)
        elif self.phase == "switching":
            self._enter("reverting", now, error=reason)

    def step(self, fleet: Mapping[str, DeviceView], now: float) -> bool:
        """Look at the fleet and go on if it allows; True if something that is published changed."""
        before = self.record
        match self.phase:
            case "canary":
                self._step_canary(fleet, now)
            case "preparing":
                self._step_preparing(fleet, now)
            case "switching":
                self._step_switching(fleet, now)
            case "reverting":
                self._step_reverting(now)
            case _:
                pass
        return self.record != before

    def _step_canary(self, fleet: Mapping[str, DeviceView], now: float) -> None:
        plan = self.record.plan
        for name in plan.canaries:
            if (trouble := self._trouble(fleet, name)) is not None:
                return self.stop(f"canary {name}: {trouble}", now)
        report = self.canary
        if report is not None and report.frames >= plan.canary_frames:
            if (report.agreement or 0.0) < plan.min_agreement:
                text = f"canary: agreement {report.agreement:.1%}, expected at least {plan.min_agreement:.1%}"
                return self.stop(f"{text} ({report.frames} frames)", now)
            if (report.latency_ratio or 0.0) > plan.max_latency_ratio:
                text = f"canary: p95 latency {report.latency_ratio:.2f} times the old one"
                return self.stop(f"{text}, expected at most {plan.max_latency_ratio:.2f}", now)
            return self._enter("preparing", now)
        if now - self._phase_since > plan.timeout_s:
            compared = report.frames if report else 0
            self.stop(f"canary: {compared} of {plan.canary_frames} frames compared in {plan.timeout_s:g} s", now)
        return None

    def _step_preparing(self, fleet: Mapping[str, DeviceView], now: float) -> None:
        waiting = self.waiting_for(fleet)
        if not waiting:
            self._quorum_since = now if self._quorum_since is None else self._quorum_since
            late = now - self._quorum_since > STRAGGLER_S
            if now - self._started >= OBSERVE_S and (late or not self._pending(fleet)):
                self._enter("switching", now, from_frames=self._frames_after({}, now))
            return None
        self._quorum_since = None
        for student in waiting:
            holders = [name for name, view in fleet.items() if student in view.students and view.online]
            troubles = {name: self._trouble(fleet, name) for name in holders}
            if holders and all(troubles.values()):
                return self.stop(f"student {student}: {_listed(troubles)}", now)
        if now - self._phase_since > self.record.plan.timeout_s:
            students = ", ".join(map(str, waiting))
            self.stop(f"no ready device for student {students} in {self.record.plan.timeout_s:g} s", now)
        return None

    def _step_switching(self, fleet: Mapping[str, DeviceView], now: float) -> None:
        frames = self._frames_after(self.record.from_frames, now)
        if frames != self.record.from_frames:
            self.record = self.record.model_copy(update={"from_frames": frames})
        waiting = self.waiting_for(fleet)
        for student in waiting:
            troubles = {name: self._trouble(fleet, name) for name, view in fleet.items() if student in view.students}
            fallen = {name: text for name, text in troubles.items() if text}
            if fallen:
                return self.stop(f"student {student}: {_listed(fallen)}", now)
        if self._past(frames, now) and self._past_since is not None:
            tried_s = now - self._past_since
            if tried_s >= self.record.plan.trial_s and (not waiting or tried_s >= OFFLINE_PATIENCE_S):
                self._enter("complete", now)
        return None

    def _step_reverting(self, now: float) -> None:
        frames = self._frames_after(self.record.back_from_frames, now)
        if frames != self.record.back_from_frames:
            self.record = self.record.model_copy(update={"back_from_frames": frames})
        if self._past(frames, now):
            self._enter("failed", now)

    def _enter(self, phase: Phase, now: float, **fields: object) -> None:
        self.record = self.record.model_copy(update={"phase": phase, **fields})
        self._phase_since = now
        self._past_since = None
        if phase == "reverting":
            self.record = self.record.model_copy(update={"back_from_frames": self._frames_after({}, now)})

    def _frames_after(self, known: Mapping[str, int], now: float) -> dict[str, int]:
        """The known numbers as they are, and one for each source that has none yet: promises are never changed."""
        later = {source: self._sources.frame_after(source, MARGIN_S, now) for source in self._sources.sources}
        return {**{source: frame for source, frame in later.items() if frame is not None}, **known}

    def _past(self, frames: Mapping[str, int], now: float) -> bool:
        """Whether every source is past its frame or quiet, and what came before is answered."""
        for source in self._sources.sources:
            passed = source in frames and self._sources.last_frame(source) >= frames[source]
            if not passed and self._sources.quiet_s(source, now) < MARGIN_S + SETTLE_S:
                self._past_since = None
                return False
        if self._past_since is None:
            self._past_since = now
        return now - self._past_since >= SETTLE_S and now - self._phase_since >= MARGIN_S + SETTLE_S

    def _ready(self, fleet: Mapping[str, DeviceView], student: int) -> list[str]:
        return [
            name
            for name, view in fleet.items()
            if view.online
            and view.update is not None
            and self._is_ready(view.update)
            and student in view.update.students
        ]

    def _is_ready(self, update: NodeUpdate) -> bool:
        target = self.record.plan.target
        return (update.state == "ready" and update.target == target) or (
            update.state == "active" and update.installed == target
        )

    def _pending(self, fleet: Mapping[str, DeviceView]) -> list[str]:
        """Devices that may still become ready."""
        return [
            name
            for name, view in fleet.items()
            if view.online
            and view.students
            and view.update is not None
            and not self._is_ready(view.update)
            and self._trouble(fleet, name) is None
        ]

    def _trouble(self, fleet: Mapping[str, DeviceView], name: str) -> str | None:
        update = fleet[name].update if name in fleet else None
        if update is None or update.rollout != self.record.plan.rollout or update.target != self.record.plan.target:
            return None
        return (update.error or update.state) if update.state in ("failed", "rolled_back") else None


def _listed(troubles: Mapping[str, str | None]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in sorted(troubles.items()))
