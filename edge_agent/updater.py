"""Brings this device to the deployment that its site desires, while the old students go on answering.

    desired -> judge -> download -> verify, load, self-test -> ready -> switch at frame N -> active
                 |          |                  |                            |
                 +----------+--> failed <------+         rolled_back <------+

Signatures, files and loading are the worker's; the loop only decides. Docs: docs/updates.md.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from edge_agent.console.artifact_download import ArtifactDownload
from edge_agent.console.exit_codes import UserError
from edge_agent.console.worker import Worker
from edge_agent.model_store import ModelStore
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.link import Extension, Link, Message
from edge_agent.protocol.manifest import FileEntry, Manifest, deployment_id
from edge_agent.protocol.update_messages import DesiredMessage, SwitchMessage, decode_update
from edge_agent.protocol.update_topics import UpdateTopics
from edge_agent.protocol.update_trust import TrustedManifest, TrustPolicy, commit
from edge_agent.student_lanes import Lane, StudentLanes
from edge_agent.student_slot import StudentSlot
from edge_agent.switch_follower import SwitchFollower
from edge_agent.update_report import UpdateReport

FIRST_RETRY_S, LAST_RETRY_S = 30.0, 600.0  # after trouble that may pass, such as a full disk
_log = logging.getLogger("update")


@dataclass(frozen=True)
class StudentPlan:
    """What this device needs of a deployment. `entries` and `open` may raise UserError: it can't be run here.

    `entries(manifest, everything)`: without `everything`, a choice made before may leave less to fetch.
    """

    entries: Callable[[Manifest, bool], list[FileEntry]]
    open: Callable[[str, tuple[int, ...]], list[StudentSlot]]
    students: Callable[[Manifest], tuple[int, ...]]


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
        self._store, self._policy, self._plan, self._lanes = store, policy, plan, lanes
        self._topics = topics
        self._worker = Worker("updates")
        self._report = UpdateReport(link, topics.node(device), store)
        self._download = ArtifactDownload(store.disk, self._worker, link, topics, device, self._downloaded)
        self._switch = SwitchFollower(lanes, self._change_over, self._take_back)
        self._device, self._proof_s, self._in_use = device, proof_s, in_use
        self._desired: DesiredMessage | None = None
        self._trusted: TrustedManifest | None = None
        self._proof_due: float | None = None
        self._retry_at: float | None = None
        self._retry_s = FIRST_RETRY_S
        self._now = 0.0
        self._activating = ""  # the last deployment that began to answer here
        self._committed: TrustedManifest | None = None
        self._widened = ""  # a deployment of which less than everything did not do
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
            self._download.receive(message.topic, message.payload)
        elif message.topic == self._topics.desired:
            if message.payload:
                self._take_desired(message.payload)
        elif message.topic == self._topics.switch:
            if message.payload:
                self._switch.take(decode_update(SwitchMessage, message.payload))
        else:
            return False
        return True

    def tick(self, now: float) -> None:
        """Results of the worker, requests, progress; a new student proves itself by time."""
        self._now = now
        self._worker.deliver()
        self._download.tick(now)
        self._report.progress(self._download.progress if self._download.running else None, now)
        if self._lanes.standby_answered and self._trusted is not None:
            self._activate(self._lanes.standby)
        self._switch.follow()
        self._commit()
        self._follow_students()
        self._prove(now)
        if self._retry_at is not None and now >= self._retry_at and self._desired is not None:
            self._retry_at = None
            self._judge(self._desired)

    def close(self) -> None:
        """Finish what the worker has begun."""
        self._worker.close()

    def _take_desired(self, payload: bytes) -> None:
        desired = decode_update(DesiredMessage, payload)
        if desired == self._desired:
            return
        if self._desired is not None and desired.rollout < self._desired.rollout:
            raise ProtocolError(f"desired: rollout {desired.rollout} after {self._desired.rollout}")
        self._desired = desired
        self._retry_at, self._retry_s = None, FIRST_RETRY_S
        self._judge(desired)

    def _judge(self, desired: DesiredMessage) -> None:
        def judge() -> TrustedManifest:
            record, installed = self._store.record, self._store.disk.manifests()
            now = datetime.now(UTC)
            return self._policy.judge(desired.manifest, desired.rollback, record.memory, installed, record.active, now)

        self._worker.submit(judge, lambda result: self._judged(desired, result))

    def _judged(self, desired: DesiredMessage, result: TrustedManifest | Exception) -> None:
        if desired is not self._desired:
            return
        if isinstance(result, Exception):
            self._fail(_target(desired), result)
            return
        target, record = result.id, self._store.record
        self._report.rollout = desired.rollout
        if self._trusted is None or self._trusted.id != target:
            self._download.stop()
            if self._lanes.standby is not None and self._lanes.standby.deployment != target:
                self._leave_standby()
        self._trusted = result
        if desired.canaries is not None and self._device not in desired.canaries:
            self._report.say("idle")
            return
        refused = record.refused.get(target)
        if refused is not None and refused.rollout == desired.rollout and target != record.active:
            self._report.rolled_back(target, record.active, refused.reason)
            return
        try:
            self._prepare(desired, result)
        except UserError as error:
            self._fail(target, error)

    def _prepare(self, desired: DesiredMessage, trusted: TrustedManifest) -> None:
        target = trusted.id
        entries = self._plan.entries(trusted.manifest, target == self._widened)
        if self._lanes.standby is not None and self._lanes.standby.deployment == target:
            self._lanes.shadow = desired.canaries is not None
            self._report.ready(target, self._lanes.standby.students, self._lanes.shadow)
            return
        if self._store.disk.holds(target, entries):
            self._load(desired, trusted)
            return
        self._report.say("downloading", target)

        def begin() -> None:
            self._store.begin(target)
            try:
                self._store.disk.begin(target, trusted.content, desired.manifest, entries)
            except OSError:
                self._store.make_room(target)
                self._store.disk.begin(target, trusted.content, desired.manifest, entries)

        def begun(result: Exception | None) -> None:
            if self._trusted is trusted:
                if result is not None:
                    self._fail(target, result)
                else:
                    self._download.start(desired.server, target, entries)

        self._worker.submit(begin, begun)

    def _downloaded(self, error: Exception | None) -> None:
        if self._desired is None or self._trusted is None:
            return
        if error is not None:
            self._fail(self._trusted.id, error)
        else:
            self._load(self._desired, self._trusted)

    def _load(self, desired: DesiredMessage, trusted: TrustedManifest) -> None:
        target, students = trusted.id, self._plan.students(trusted.manifest)
        if target == self._lanes.current.deployment and students == self._lanes.current.students:
            self._switch.prepared()
            self._report.settled(trusted.id, students)
            return
        self._report.say("verifying", target)

        def load() -> list[StudentSlot]:
            self._store.opening(target, desired.rollout)
            try:
                return self._plan.open(target, students)
            finally:
                self._store.opened()

        self._worker.submit(load, lambda result: self._loaded(trusted, result))

    def _loaded(self, trusted: TrustedManifest, result: list[StudentSlot] | Exception) -> None:
        if isinstance(result, Exception):
            if self._trusted is trusted and not self._widen(trusted, result):
                self._fail(trusted.id, result)
            return
        if self._trusted is None or self._trusted.id != trusted.id:
            for slot in result:
                slot.runtime.close()
            return
        canaries = self._desired.canaries if self._desired is not None else None
        self._lanes.prepare(Lane(trusted.id, tuple(result)), canaries is not None)
        self._report.ready(
            trusted.id, self._lanes.standby.students if self._lanes.standby else (), canaries is not None
        )
        _log.info(
            "deployment %s (%s, version %d) is ready", trusted.id, trusted.manifest.name, trusted.manifest.version
        )
        self._switch.prepared()

    def _widen(self, trusted: TrustedManifest, error: Exception) -> bool:
        """The kind of artifact that was chosen before does not work any more: fetch the others too, once."""
        if self._desired is None or trusted.id == self._widened or not isinstance(error, UserError):
            return False
        if self._plan.entries(trusted.manifest, True) == self._plan.entries(trusted.manifest, False):
            return False
        _log.warning("deployment %s: %s; fetching all artifacts that fit", trusted.id, error)
        self._widened = trusted.id
        self._prepare(self._desired, trusted)
        return True

    def _activate(self, lane: Lane | None) -> None:
        """From the first frame that the new students answer, a reboot comes back to them."""
        if lane is None or lane.deployment in (self._activating, self._store.record.active):
            return
        deployment, rollout = lane.deployment, self._report.rollout
        self._activating = deployment
        self._proof_due = self._now + self._proof_s

        def activated(result: Exception | None) -> None:
            self._stored(result)
            if self._activating == deployment:  # said when it is durable: who reads it may pull the plug
                self._report.active(deployment)

        self._worker.submit(lambda: self._store.activate(deployment, rollout), activated)

    def _change_over(self, switch: SwitchMessage) -> None:
        """The switch is complete: what was standby answers everything."""
        trusted = self._trusted
        if trusted is None or self._lanes.standby is None or trusted.id != self._lanes.standby.deployment:
            return
        self._activate(self._lanes.standby)
        self._lanes.change_over()
        self._in_use()
        _log.info("deployment %s answers", switch.deployment)

    def _take_back(self, switch: SwitchMessage) -> None:
        """The switch was taken back before it was complete: what answered before goes on."""
        bad, current, reason = switch.previous or "", self._lanes.current.deployment, switch.reason
        self._worker.submit(lambda: self._store.refuse(bad, switch.rollout, reason), self._stored)
        self._worker.submit(lambda: self._store.activate(current, switch.rollout), self._stored)
        self._activating = ""
        self._lanes.drop_standby()
        self._report.rolled_back(bad, current, reason)
        _log.warning("deployment %s was taken back: %s", bad, reason)

    def _leave_standby(self) -> None:
        """The site desires something else before the standby answered."""
        current, standby, rollout = self._lanes.current.deployment, self._lanes.standby, self._report.rollout
        if (
            standby is not None and self._activating == standby.deployment
        ):  # it answered, and the switch back was missed
            self._worker.submit(lambda: self._store.activate(current, rollout), self._stored)
            self._report.rolled_back(standby.deployment, current, "the site went back before the update was complete")
        self._activating = ""
        self._lanes.drop_standby()

    def _commit(self) -> None:
        """The site has settled on what answers here: from now on nothing older, but for a signed rollback."""
        trusted = self._trusted
        if trusted is None or trusted is self._committed or self._switch.settled != trusted.id:
            return
        if self._lanes.current.deployment == trusted.id:
            self._committed = trusted

            def remember() -> None:
                self._store.remember(commit(self._store.record.memory, trusted))
                self._store.disk.keep({self._store.record.active, self._store.record.previous})

            self._worker.submit(remember, self._stored)

    def _follow_students(self) -> None:
        """The coordinator gave this device other students meanwhile: the standby lane needs them too."""
        standby, trusted, desired = self._lanes.standby, self._trusted, self._desired
        if (
            standby is None
            or trusted is None
            or desired is None
            or self._worker.pending
            or self._report.state != "ready"
        ):
            return
        if standby.deployment == trusted.id and standby.students != self._plan.students(trusted.manifest):
            self._load(desired, trusted)

    def _fail(self, target: str, error: Exception) -> None:
        self._report.say("failed", target, f"{error.strerror or error}" if isinstance(error, OSError) else str(error))
        _log.error("deployment %s: %s", target, error)
        if isinstance(error, OSError):  # a full disk may be emptied; a wrong hash stays wrong
            self._retry_at = self._now + self._retry_s
            self._retry_s = min(LAST_RETRY_S, 2 * self._retry_s)
            record = self._store.record
            self._worker.submit(lambda: self._store.disk.keep({record.active, record.previous}), self._stored)
        elif self._desired is not None and isinstance(error, UserError):
            rollout = self._desired.rollout
            self._worker.submit(lambda: self._store.refuse(target, rollout, str(error)), self._stored)

    def _prove(self, now: float) -> None:
        if self._store.record.proven or self._worker.pending:
            return
        if self._proof_due is None:
            self._proof_due = now + self._proof_s
        if now >= self._proof_due:
            self._proof_due = None
            self._worker.submit(self._store.prove, self._stored)

    def _stored(self, result: Exception | None) -> None:
        if result is not None:
            # The disk does not take the record: answers go on, and a reboot finds the old record.
            _log.error("the store can't be written: %s", result)


def _target(desired: DesiredMessage) -> str:
    try:
        return deployment_id(desired.manifest.raw)
    except ProtocolError:
        return ""
