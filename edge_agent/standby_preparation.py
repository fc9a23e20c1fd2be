"""Brings the students of a trusted deployment to this device and loads them beside those that answer."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.console.artifact_download import ArtifactDownload
from edge_agent.console.exit_codes import UserError
from edge_agent.protocol.link import Link
from edge_agent.protocol.manifest import FileEntry, Manifest
from edge_agent.protocol.update_messages import DesiredMessage
from edge_agent.protocol.update_topics import UpdateTopics
from edge_agent.protocol.update_trust import TrustedManifest
from edge_agent.student_lanes import Lane
from edge_agent.student_slot import StudentSlot
from edge_agent.update_context import UpdateContext

_log = logging.getLogger("update")


@dataclass(frozen=True)
class StudentPlan:
    """What this device needs of a deployment. `entries` and `open` may raise UserError: it can't be run here.

    `entries(manifest, everything)`: without `everything`, a choice made before may leave less to fetch.
    """

    entries: Callable[[Manifest, bool], list[FileEntry]]
    open: Callable[[str, tuple[int, ...]], list[StudentSlot]]
    students: Callable[[Manifest], tuple[int, ...]]


class StandbyPreparation:
    """Downloads, verifies and loads. `ready`: a switch may be followed now; `failed(target, error)`: it can't be."""

    def __init__(
        self,
        context: UpdateContext,
        plan: StudentPlan,
        link: Link,
        topics: UpdateTopics,
        device: str,
        ready: Callable[[], None],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._context, self._plan, self._ready, self._failed = context, plan, ready, failed
        self._store, self._worker = context.store, context.worker
        self._lanes, self._report = context.lanes, context.report
        self._download = ArtifactDownload(self._store.disk, self._worker, link, topics, device, self._downloaded)
        self._widened = ""  # a deployment of which less than everything did not do

    def receive_chunk(self, topic: str, payload: bytes) -> None:
        """A part of an artifact came."""
        self._download.receive(topic, payload)

    def tick(self, now: float) -> None:
        """Ask for chunks and say how far it is."""
        self._download.tick(now)
        self._report.progress(self._download.progress if self._download.running else None, now)

    def stop_download(self) -> None:
        """Something else is desired; what has come stays on the disk."""
        self._download.stop()

    def prepare(self, desired: DesiredMessage, trusted: TrustedManifest) -> None:
        """Begin where this device stands: nothing of it here, on the disk, or loaded; may raise UserError."""
        target = trusted.id
        entries = self._plan.entries(trusted.manifest, target == self._widened)
        if self._lanes.standby is not None and self._lanes.standby.deployment == target:
            self._lanes.shadow = desired.canaries is not None
            self._report.ready(target, self._lanes.standby.students, self._lanes.shadow)
        elif self._store.disk.holds(target, entries):
            self._load(desired, trusted)
        else:
            self._fetch(desired, trusted, entries)

    def follow_students(self) -> None:
        """The coordinator gave this device other students meanwhile: the standby lane needs them too."""
        standby, trusted, desired = self._lanes.standby, self._context.trusted, self._context.desired
        if standby is None or trusted is None or desired is None:
            return
        if self._worker.pending or self._report.state != "ready":
            return
        if standby.deployment == trusted.id and standby.students != self._plan.students(trusted.manifest):
            self._load(desired, trusted)

    def _fetch(self, desired: DesiredMessage, trusted: TrustedManifest, entries: list[FileEntry]) -> None:
        target = trusted.id
        self._report.say("downloading", target)

        def begin() -> None:
            self._store.begin(target)
            try:
                self._store.disk.begin(target, trusted.content, desired.manifest, entries)
            except OSError:
                self._store.make_room(target)
                self._store.disk.begin(target, trusted.content, desired.manifest, entries)

        def begun(result: Exception | None) -> None:
            if self._context.trusted is trusted:
                if result is not None:
                    self._failed(target, result)
                else:
                    self._download.start(desired.server, target, entries)

        self._worker.submit(begin, begun)

    def _downloaded(self, error: Exception | None) -> None:
        desired, trusted = self._context.desired, self._context.trusted
        if desired is None or trusted is None:
            return
        if error is not None:
            self._failed(trusted.id, error)
        else:
            self._load(desired, trusted)

    def _load(self, desired: DesiredMessage, trusted: TrustedManifest) -> None:
        target, students = trusted.id, self._plan.students(trusted.manifest)
        if target == self._lanes.current.deployment and students == self._lanes.current.students:
            self._ready()
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
        wanted, desired = self._context.trusted, self._context.desired
        if isinstance(result, Exception):
            if wanted is trusted and not self._widen(trusted, result):
                self._failed(trusted.id, result)
            return
        if wanted is None or wanted.id != trusted.id:
            for slot in result:
                slot.runtime.close()
            return
        shadow = desired is not None and desired.canaries is not None
        lane, manifest = Lane(trusted.id, tuple(result)), trusted.manifest
        self._lanes.prepare(lane, shadow)
        self._report.ready(trusted.id, lane.students, shadow)
        _log.info("deployment %s (%s, version %d) is ready", trusted.id, manifest.name, manifest.version)
        self._ready()

    def _widen(self, trusted: TrustedManifest, error: Exception) -> bool:
        """The kind of artifact that was chosen before does not work any more: fetch the others too, once."""
        desired, manifest = self._context.desired, trusted.manifest
        if desired is None or trusted.id == self._widened or not isinstance(error, UserError):
            return False
        if self._plan.entries(manifest, True) == self._plan.entries(manifest, False):
            return False
        _log.warning("deployment %s: %s; fetching all artifacts that fit", trusted.id, error)
        self._widened = trusted.id
        self.prepare(desired, trusted)
        return True
