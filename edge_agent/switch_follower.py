"""Follows `deployment/switch` with two lanes: schedules frames, says when a switch is complete or taken back. Pure."""

from collections.abc import Callable

from edge_agent.protocol.switch_schedule import SwitchSchedule, SwitchStep
from edge_agent.protocol.update_messages import SwitchMessage
from edge_agent.student_lanes import StudentLanes


class SwitchFollower:
    """The last switch message counts; it may come before the deployment that it names is ready."""

    def __init__(
        self,
        lanes: StudentLanes,
        complete: Callable[[SwitchMessage], None],
        taken_back: Callable[[SwitchMessage], None],
    ) -> None:
        self._lanes = lanes
        self._complete = complete
        self._taken_back = taken_back
        self._message: SwitchMessage | None = None

    @property
    def settled(self) -> str:
        """The deployment that answers for good, as far as the site has said; '' while a switch goes on."""
        message = self._message
        return message.deployment if message is not None and message.complete else ""

    def take(self, message: SwitchMessage) -> None:
        """A switch message came."""
        if self._message is None or message.rollout >= self._message.rollout:
            self._message = message
            self.follow()

    def prepared(self) -> None:
        """A lane was prepared: a switch may have waited for it."""
        self.follow()

    def follow(self) -> None:
        """Do what the message says, as far as the lanes allow."""
        message, lanes = self._message, self._lanes
        if message is None or lanes.standby is None:
            return
        new, old = lanes.standby.deployment, lanes.current.deployment
        if not message.complete and message.deployment in (new, old):
            self._schedule(message)
        elif message.complete and message.deployment == new:
            self._complete(message)
        elif message.complete and message.deployment == old and message.reason and message.previous == new:
            self._taken_back(message)

    def _schedule(self, message: SwitchMessage) -> None:
        steps = [step for step in self._lanes.schedule.steps if step.deployment != message.deployment]
        base = self._lanes.current.deployment
        if message.deployment == base and not steps:
            return  # a switch taken back before this device had begun it
        steps.append(SwitchStep(message.deployment, message.from_frames))
        self._lanes.schedule = SwitchSchedule(base, tuple(steps))
