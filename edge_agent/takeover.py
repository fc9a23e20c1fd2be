"""Lets the new students take over at the site's switch, or give back: each step is on the disk before it is said."""

import logging
from collections.abc import Callable

from edge_agent.protocol.update_messages import SwitchMessage
from edge_agent.protocol.update_trust import TrustedManifest, commit
from edge_agent.student_lanes import Lane
from edge_agent.switch_follower import SwitchFollower
from edge_agent.update_context import UpdateContext

_log = logging.getLogger("update")


class Takeover:
    """From a standby lane that is ready to the deployment that answers here for good."""

    def __init__(self, context: UpdateContext, proof_s: float, in_use: Callable[[], None]) -> None:
        self._context, self._store, self._lanes = context, context.store, context.lanes
        self._proof_s, self._in_use = proof_s, in_use
        self._switch = SwitchFollower(context.lanes, self._change_over, self._take_back)
        self._committed: TrustedManifest | None = None
        self._activating = ""  # the last deployment that began to answer here
        self._proof_due: float | None = None

    def take(self, message: SwitchMessage) -> None:
        """The site switches, or takes a switch back."""
        self._switch.take(message)

    def prepared(self) -> None:
        """The standby lane is ready: a switch may have waited for it."""
        self._switch.prepared()

    def tick(self, now: float) -> None:
        """Follow the switch as far as the lanes allow; a new student proves itself by time."""
        if self._lanes.standby_answered and self._context.trusted is not None:
            self._activate(self._lanes.standby)
        self._switch.follow()
        self._commit()
        self._prove(now)

    def leave_standby(self) -> None:
        """The site desires something else before the standby answered for good."""
        current, standby, rollout = self._lanes.current.deployment, self._lanes.standby, self._context.report.rollout
        if standby is not None and self._activating == standby.deployment:
            # It answered some frames, and the switch back was missed.
            self._submit(lambda: self._store.activate(current, rollout))
            reason = "the site went back before the update was complete"
            self._context.report.rolled_back(standby.deployment, current, reason)
        self._activating = ""
        self._lanes.drop_standby()

    def _activate(self, lane: Lane | None) -> None:
        """From the first frame that the new students answer, a reboot comes back to them."""
        if lane is None or lane.deployment in (self._activating, self._store.record.active):
            return
        deployment, rollout = lane.deployment, self._context.report.rollout
        self._activating = deployment
        self._proof_due = None  # its time begins when it is on the disk

        def activated(result: Exception | None) -> None:
            self._context.stored(result)
            if self._activating == deployment:  # said when it is durable: who reads it may pull the plug
                self._context.report.active(deployment)

        self._context.worker.submit(lambda: self._store.activate(deployment, rollout), activated)

    def _change_over(self, switch: SwitchMessage) -> None:
        """The switch is complete: what was standby answers everything."""
        trusted, standby = self._context.trusted, self._lanes.standby
        if trusted is None or standby is None or trusted.id != standby.deployment:
            return
        self._activate(standby)
        self._lanes.change_over()
        self._in_use()
        _log.info("deployment %s answers", switch.deployment)

    def _take_back(self, switch: SwitchMessage) -> None:
        """The switch was taken back before it was complete: what answered before goes on."""
        bad, current, reason = switch.previous or "", self._lanes.current.deployment, switch.reason
        self._submit(lambda: self._store.refuse(bad, switch.rollout, reason))
        self._submit(lambda: self._store.activate(current, switch.rollout))
        self._activating = ""
        self._lanes.drop_standby()
        self._context.report.rolled_back(bad, current, reason)
        _log.warning("deployment %s was taken back: %s", bad, reason)

    def _commit(self) -> None:
        """The site has settled on what answers here: from now on nothing older, but for a signed rollback."""
        trusted = self._context.trusted
        if trusted is None or trusted is self._committed or self._switch.settled != trusted.id:
            return
        if self._lanes.current.deployment == trusted.id:
            self._committed = trusted

            def remember() -> None:
                self._store.remember(commit(self._store.record.memory, trusted))
                self._store.disk.keep({self._store.record.active, self._store.record.previous})

            self._submit(remember)

    def _prove(self, now: float) -> None:
        if self._store.record.proven or self._context.worker.pending:
            return
        if self._proof_due is None:
            self._proof_due = now + self._proof_s
        if now >= self._proof_due:
            self._proof_due = None
            self._submit(self._store.prove)

    def _submit(self, job: Callable[[], None]) -> None:
        self._context.worker.submit(job, self._context.stored)
