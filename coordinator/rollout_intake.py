"""Takes deploy requests: judges them, answers them, and fetches the bundle until all of it is here."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from coordinator.app import CoordinatorApp
from coordinator.deployment_shelf import DeploymentShelf, open_head
from edge_agent.console.artifact_download import ArtifactDownload
from edge_agent.console.worker import Worker
from edge_agent.protocol.link import Outgoing
from edge_agent.protocol.update_messages import DeployReply, DeployRequest
from edge_agent.protocol.update_topics import UpdateTopics
from edge_agent.protocol.update_trust import TrustedManifest, TrustPolicy

FETCH_PATIENCE_S = 30.0  # without a chunk for so long, who wanted to deploy is gone
_log = logging.getLogger("rollout")


class RolloutIntake:
    """One request at a time. `accepted`: a good one came; `fetching`: it begins; `whole`: all of it can be used."""

    def __init__(
        self,
        app: CoordinatorApp,
        shelf: DeploymentShelf,
        policy: TrustPolicy,
        worker: Worker,
        stored: Callable[[Exception | None], None],
        accepted: Callable[[], None],
        fetching: Callable[[], None],
        whole: Callable[[DeployRequest, TrustedManifest], None],
    ) -> None:
        self._app, self._shelf, self._policy, self._worker = app, shelf, policy, worker
        self._stored, self._accepted, self._fetching_began, self._whole = stored, accepted, fetching, whole
        self._topics = UpdateTopics(app.topics)
        self._download = ArtifactDownload(
            shelf.disk, worker, app.link, self._topics, app.settings.coordinator, self._fetched
        )
        self._judging = False
        self._fetching: tuple[DeployRequest, TrustedManifest] | None = None
        self._fetch_seen = (0.0, 0.0)  # progress, and when it last grew
        self.error = ""  # why the last bundle could not be fetched

    @property
    def busy(self) -> bool:
        """A request is being judged or fetched."""
        return self._judging or self._fetching is not None

    @property
    def target(self) -> str | None:
        """The deployment that is being fetched."""
        return self._fetching[1].id if self._fetching is not None else None

    @property
    def progress(self) -> float:
        """Share of its bytes that have come."""
        return self._download.progress if self._download.running else 0.0

    def take(self, request: DeployRequest, rollout_under_way: bool) -> None:
        """Judge a request, unless something is under way."""
        if self.busy or rollout_under_way:
            self._reply(request, "another rollout is under way; wait for its end")
            return
        shelf, now = self._shelf, datetime.now(UTC)
        self._judging = True

        def judge() -> TrustedManifest:
            record, installed = shelf.record, shelf.disk.manifests()
            manifest = request.manifest or shelf.kept_manifest(request.rollback)
            return self._policy.judge(manifest, request.rollback, record.memory, installed, "", now)

        self._worker.submit(judge, lambda result: self._judged(request, result))

    def receive_chunk(self, topic: str, payload: bytes) -> None:
        """A part of the bundle came."""
        self._download.receive(topic, payload)

    def tick(self, now: float) -> None:
        """Ask for chunks."""
        self._download.tick(now)

    def watch_fetch(self, now: float) -> None:
        """Give up when whoever wanted to deploy is gone."""
        if self._fetching is None or not self._download.running:
            return
        share, since = self._fetch_seen
        if self._download.progress > share:
            self._fetch_seen = (self._download.progress, now)
        elif now - since > FETCH_PATIENCE_S:
            self._download.stop()
            self._fetched(TimeoutError(f"no chunk for {FETCH_PATIENCE_S:g} s: who wanted to deploy is gone"))

    def _judged(self, request: DeployRequest, result: TrustedManifest | Exception) -> None:
        self._judging = False
        error = str(result) if isinstance(result, Exception) else self._reason_to_refuse(result, request)
        if error or isinstance(result, Exception):
            _log.warning("deploy refused: %s", error)
            self._reply(request, error)
            return
        self.error = ""
        self._accepted()
        self._reply(request, "")
        self._fetching = (request, result)
        if self._shelf.holds(result.id):
            self._fetched(None)
        else:
            self._fetch(request, result)

    def _reason_to_refuse(self, trusted: TrustedManifest, request: DeployRequest) -> str:
        current, manifest = self._app.deployment.manifest, trusted.manifest
        if trusted.id == self._shelf.record.active:
            return f"deployment {trusted.id} is active already"
        if manifest.input != current.input:
            size = manifest.input
            return f"images of {size.height}x{size.width}x{size.channels}: the site's sources send others"
        online = {device.name: device.info for device in self._app.roster.devices if device.online}
        for name in request.canaries:
            info = online.get(name)
            if info is None:
                return f"canary {name}: not online"
            if info.deployment != self._shelf.record.active:
                return f"canary {name}: answers with {info.deployment}; nothing to compare with {trusted.id}"
        return ""

    def _fetch(self, request: DeployRequest, trusted: TrustedManifest) -> None:
        shelf, files = self._shelf, trusted.manifest.files()
        # The previous one stays until the new one is final: a stopped canary must not cost the way back.
        shelf.drop_others(self._worker, self._stored, shelf.record.active, shelf.record.previous, trusted.id)

        def begun(outcome: Exception | None) -> None:
            if outcome is not None:
                self._fetched(outcome)
            else:
                self._fetch_seen = (0.0, time.monotonic())
                self._download.start(request.server, trusted.id, files)
                self._fetching_began()  # a small bundle is here before the next tick

        self._worker.submit(lambda: shelf.disk.begin(trusted.id, trusted.content, request.manifest, files), begun)

    def _fetched(self, error: Exception | None) -> None:
        if self._fetching is None:
            return
        (request, trusted), self._fetching = self._fetching, None
        if error is None:
            try:
                open_head(self._shelf.disk.open(trusted.id))
            except Exception as trouble:  # noqa: BLE001 (a bundle that can't be used, whatever is wrong with it)
                error = trouble
        if error is not None:
            self.error = f"deployment {trusted.id}: {error}"
            _log.error("%s", self.error)
        else:
            self._whole(request, trusted)

    def _reply(self, request: DeployRequest, error: str) -> None:
        reply = DeployReply(transaction=request.transaction, status="error" if error else "ok", error=error)
        self._app.publish(Outgoing(self._topics.deploy_reply, reply.encode(), qos=1))
