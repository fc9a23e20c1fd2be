"""The students that answer, and those of the next deployment beside them. Pure but for the interpreters it holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_agent.protocol.switch_schedule import SwitchSchedule
from edge_agent.student_slot import StudentSlot


@dataclass(frozen=True)
class Lane:
    """The students of one deployment on this device."""

    deployment: str
    slots: tuple[StudentSlot, ...] = field(default=(), repr=False)

    @property
    def students(self) -> tuple[int, ...]:
        """Their indices."""
        return tuple(slot.student.index for slot in self.slots)


class StudentLanes:
    """`current` answers, except for frames that the schedule gives to `standby`."""

    def __init__(self, deployment: str, slots: Sequence[StudentSlot]) -> None:
        self.current = Lane(deployment, tuple(slots))
        self.standby: Lane | None = None
        self.schedule = SwitchSchedule(deployment)
        self.shadow = False  # a canary: standby runs after current has answered, and does not count
        self.standby_answered = False

    def use(self, deployment: str, slots: Sequence[StudentSlot]) -> None:
        """Answer with these from the next frame on."""
        self.current = Lane(deployment, tuple(slots))
        if self.standby is None:
            self.schedule = SwitchSchedule(deployment)

    def answering(self, source: str, frame_id: int) -> Lane:
        """The lane for one frame."""
        standby = self.standby
        if standby is not None and self.schedule.steps:
            wanted = self.schedule.deployment_for(source, frame_id)
            if wanted == standby.deployment and wanted != self.current.deployment:
                self.standby_answered = True
                return standby
        return self.current

    @property
    def shadowing(self) -> Lane | None:
        """The lane to run beside the answer, or None."""
        return self.standby if self.shadow else None

    def prepare(self, lane: Lane, shadow: bool) -> None:
        """Keep `lane` ready beside the current one."""
        self.drop_standby()
        self.standby, self.shadow = lane, shadow
        self.schedule = SwitchSchedule(self.current.deployment)

    def change_over(self) -> None:
        """Standby becomes current; the old students give their memory back."""
        if self.standby is not None:
            old, self.current, self.standby = self.current, self.standby, None
            self._reset()
            _close(old)

    def drop_standby(self) -> None:
        """Give the standby students' memory back."""
        if self.standby is not None:
            old, self.standby = self.standby, None
            self._reset()
            _close(old)

    def _reset(self) -> None:
        self.shadow = self.standby_answered = False
        self.schedule = SwitchSchedule(self.current.deployment)


def _close(lane: Lane) -> None:
    for slot in lane.slots:
        slot.runtime.close()
