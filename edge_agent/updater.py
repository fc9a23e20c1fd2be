"""Brings this device to the deployment that its site desires, while the old students go on answering.

    desired -> judge -> download -> verify, load, self-test -> ready -> switch at frame N -> active
                 |          |                  |                            |
                 +----------+--> failed <------+         rolled_back <------+

Judging is here, up to `ready` it is standby_preparation's, after that takeover's. Signatures, files and loading are
the worker's; the loop only decides. Docs: docs/updates.md.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from edge_agent.console.exit_codes import UserError
from edge_agent.console.worker import Worker
from edge_agent.model_store import ModelStore
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.link import Extension, Link, Message
from edge_agent.protocol.manifest import deployment_id
from edge_agent.protocol.update_messages import DesiredMessage, SwitchMessage, decode_update
from edge_agent.protocol.update_topics import UpdateTopics
from edge_agent.protocol.update_trust import TrustedManifest, TrustPolicy
from edge_agent.standby_preparation import StandbyPreparation, StudentPlan
from edge_agent.student_lanes import StudentLanes
from edge_agent.takeover import Takeover
from edge_agent.update_context import UpdateContext
from edge_agent.update_report import UpdateReport

FIRST_RETRY_S, LAST_RETRY_S = 30.0, 600.0  # after trouble that may pass, such as a full disk
_log = logging.getLogger("update")


class Updater(Extension):
    """One device's part in model updates."""

    def __init__(
        self,
        store: ModelStore,
        policy: TrustPolicy,
        plan: StudentPlan,
        lanes: StudentLanes,
        link: Link,
        topics: UpdateTopics,
        device: str,
        proof_s: float,
        in_use: Callable[[], None],
        fell_back: str = "",
    ) -> None:
        self._store, self._policy, self._lanes, self._topics, self._device = store, policy, lanes, topics, device
        self._worker = Worker("updates")
        self._report = UpdateReport(link, topics.node(device), store)
        self._context = UpdateContext(store, self._worker, lanes, self._report)
        self._takeover = Takeover(self._context, proof_s, in_use)
        self._standby = StandbyPreparation(
            self._context, plan, link, topics, device, self._takeover.prepared, self._fail
        )
        self._retry_at: float | None = None
        self._retry_s = FIRST_RETRY_S
        self._now = 0.0
        if fell_back:
            self._report.fell_back(fell_back)

    def subscriptions(self) -> list[tuple[str, int]]:
        """What the site desires and when it switches, both retained."""
        return [(self._topics.desired, 1), (self._topics.switch, 1)]

    def connected(self) -> None:
        """Say how far this device is."""
        self._report.publish()

    def receive(self, message: Message) -> bool:
        """Desired deployment, switch, chunk."""
        if self._topics.is_chunk(message.topic):
            self._standby.receive_chunk(message.topic, message.payload)
        elif message.topic == self._topics.desired:
            if message.payload:
                self._take_desired(message.payload)
        elif message.topic == self._topics.switch:
            if message.payload:
                self._takeover.take(decode_update(SwitchMessage, message.payload))
        else:
            return False
        return True

    def tick(self, now: float) -> None:
        """Results of the worker, then each part in turn; what failed by bad luck is tried again."""
        self._now = now
        self._worker.deliver()
        self._standby.tick(now)
        self._takeover.tick(now)
        self._standby.follow_students()
        if self._retry_at is not None and now >= self._retry_at and self._context.desired is not None:
            self._retry_at = None
            self._judge(self._context.desired)

    def close(self) -> None:
        """Finish what the worker has begun."""
        self._worker.close()

    def _take_desired(self, payload: bytes) -> None:
        desired, before = decode_update(DesiredMessage, payload), self._context.desired
        if desired == before:
            return
        if before is not None and desired.rollout < before.rollout:
            raise ProtocolError(f"desired: rollout {desired.rollout} after {before.rollout}")
        self._context.desired = desired
        self._retry_at, self._retry_s = None, FIRST_RETRY_S
        self._judge(desired)

    def _judge(self, desired: DesiredMessage) -> None:
        def judge() -> TrustedManifest:
            record, installed = self._store.record, self._store.disk.manifests()
            now = datetime.now(UTC)
            return self._policy.judge(desired.manifest, desired.rollback, record.memory, installed, record.active, now)

        self._worker.submit(judge, lambda result: self._judged(desired, result))

    def _judged(self, desired: DesiredMessage, result: TrustedManifest | Exception) -> None:
        if desired is not self._context.desired:
            return
        if isinstance(result, Exception):
            self._fail(_target(desired), result)
            return
        self._report.rollout = desired.rollout
        self._leave(result.id)
        self._context.trusted = result
        if desired.canaries is not None and self._device not in desired.canaries:
            self._report.say("idle")
        elif not self._has_refused(desired, result.id):
            self._prepare(desired, result)

    def _leave(self, target: str) -> None:
        """What was under way ends, unless it leads to the target."""
        trusted, standby = self._context.trusted, self._lanes.standby
        if trusted is None or trusted.id != target:
            self._standby.stop_download()
            if standby is not None and standby.deployment != target:
                self._takeover.leave_standby()

    def _has_refused(self, desired: DesiredMessage, target: str) -> bool:
        """It failed here in this very rollout; says so again."""
        record = self._store.record
        refused = record.refused.get(target)
        if refused is None or refused.rollout != desired.rollout or target == record.active:
            return False
        self._report.rolled_back(target, record.active, refused.reason)
        return True

    def _prepare(self, desired: DesiredMessage, trusted: TrustedManifest) -> None:
        try:
            self._standby.prepare(desired, trusted)
        except UserError as error:
            self._fail(trusted.id, error)

    def _fail(self, target: str, error: Exception) -> None:
        self._report.say("failed", target, f"{error.strerror or error}" if isinstance(error, OSError) else str(error))
        _log.error("deployment %s: %s", target, error)
        desired, record = self._context.desired, self._store.record
        if isinstance(error, OSError):  # a full disk may be emptied; a wrong hash stays wrong
            self._retry_at = self._now + self._retry_s
            self._retry_s = min(LAST_RETRY_S, 2 * self._retry_s)
            self._worker.submit(lambda: self._store.disk.keep({record.active, record.previous}), self._context.stored)
        elif desired is not None and isinstance(error, UserError):
            reason = str(error)
            self._worker.submit(lambda: self._store.refuse(target, desired.rollout, reason), self._context.stored)


def _target(desired: DesiredMessage) -> str:
    try:
        return deployment_id(desired.manifest.raw)
    except ProtocolError:
        return ""
