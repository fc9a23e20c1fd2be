"""Which deployment answers which frame while a site switches: the same rule on devices and coordinator. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SwitchStep:
    """`deployment` answers from frame N of each source on; sources that are not named stay where they are."""

    deployment: str
    from_frames: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SwitchSchedule:
    """`base`, then the steps in order; a later step counts for the frames it covers. A switch taken back is two.

    >>> schedule = SwitchSchedule("old", (SwitchStep("new", {"cam": 10}), SwitchStep("old", {"cam": 20})))
    >>> [schedule.deployment_for("cam", n) for n in (9, 10, 19, 20)]
    ['old', 'new', 'new', 'old']
    """

    base: str
    steps: tuple[SwitchStep, ...] = ()

    def deployment_for(self, source: str, frame_id: int) -> str:
        """The deployment that answers this frame."""
        for step in reversed(self.steps):
            if frame_id >= step.from_frames.get(source, frame_id + 1):
                return step.deployment
        return self.base
