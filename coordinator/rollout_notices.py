"""What the site is told of a rollout, all retained: nothing goes out before the record behind it is on the disk."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from coordinator.app import CoordinatorApp
from coordinator.deployment_shelf import DeploymentShelf
from coordinator.rollout import Rollout
from edge_agent.console.worker import Worker
from edge_agent.protocol.link import Outgoing
from edge_agent.protocol.update_messages import DesiredMessage, RolloutPhase, RolloutStatus, SwitchMessage
from edge_agent.protocol.update_topics import UpdateTopics

_log = logging.getLogger("rollout")


@dataclass(frozen=True)
class Situation:
    """What holds now. `fetching`: the deployment that is on its way here, and `fetched` its share of bytes."""

    rollout: Rollout | None
    fetching: str | None
    fetched: float
    waiting_for: tuple[int, ...]
    error: str


class RolloutNotices:
    """Writes the shelf's record, and after that publishes what is new."""

    def __init__(
        self, app: CoordinatorApp, shelf: DeploymentShelf, worker: Worker, situation: Callable[[], Situation]
    ) -> None:
        self._app, self._shelf, self._worker, self._situation = app, shelf, worker, situation
        self._name = app.settings.coordinator
        self._topics = UpdateTopics(app.topics)
        self._said: dict[str, bytes] = {}
        self._unwritten = 0  # changes of the record that are not on the disk yet

    def change(self, **fields: object) -> None:
        """Change the record; what follows from it is said when it is durable."""
        self._unwritten += 1
        self._shelf.change(self._worker, self._changed, **fields)

    def say_again(self) -> None:
        """Everything: the broker may have lost it."""
        self._said.clear()
        self.publish()

    def publish(self) -> None:
        """What is new of switch, desired deployment and status."""
        if self._unwritten:
            return  # it would be taken back if the coordinator died now
        situation = self._situation()
        # The switch first: a device that hears of the end of a rollout should know why.
        self._say(self._topics.switch, self._switch(situation.rollout).encode())
        self._say(self._topics.desired, self._desired(situation.rollout).encode())
        self.publish_status()

    def publish_status(self) -> None:
        """The status, if it is new."""
        if not self._unwritten:
            self._say(self._topics.rollout(self._name), self._status(self._situation()).encode())

    def stored(self, result: Exception | None) -> None:
        """For jobs that write the shelf."""
        if result is not None:
            # The site goes on; should the coordinator die now, it comes back with the last record that was written.
            _log.error("the store can't be written: %s", result)

    def _changed(self, result: Exception | None) -> None:
        self._unwritten -= 1
        self.stored(result)
        self.publish()

    def _switch(self, rollout: Rollout | None) -> SwitchMessage:
        if rollout is not None:
            return rollout.switch
        record = self._shelf.record
        return SwitchMessage(rollout=record.last_rollout, deployment=record.active, complete=True)

    def _desired(self, rollout: Rollout | None) -> DesiredMessage:
        record = self._shelf.record
        deployment, canaries = rollout.desired if rollout is not None else (record.active, None)
        return DesiredMessage(
            rollout=record.last_rollout, server=self._name, manifest=self._shelf.signed_manifest(deployment),
            rollback=record.orders.get(deployment), canaries=canaries,
        )  # fmt: skip

    def _status(self, situation: Situation) -> RolloutStatus:
        record, rollout = self._shelf.record, situation.rollout
        phase: RolloutPhase = "idle" if rollout is None else rollout.phase
        target = rollout.record.plan.target if rollout is not None else None
        if situation.fetching is not None:
            phase, target = "fetching", situation.fetching
        elif situation.error and rollout is None:
            phase = "failed"
        return RolloutStatus(
            phase=phase, rollout=record.last_rollout, active=record.active,
            active_version=self._shelf.version(record.active) or 1, previous=record.previous or None,
            previous_version=self._shelf.version(record.previous), target=target,
            progress=round(situation.fetched, 2), waiting_for=situation.waiting_for,
            canary=rollout.canary if rollout is not None else None, error=situation.error,
        )  # fmt: skip

    def _say(self, topic: str, payload: bytes) -> None:
        if self._said.get(topic) != payload and self._app.link.connected:
            self._said[topic] = payload
            self._app.publish(Outgoing(topic, payload, qos=1, retain=True))
