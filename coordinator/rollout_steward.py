"""Takes deploy requests, fetches and checks bundles, and steers the rollout: publishes what the machine says.

What holds is on the disk before it is on the wire: after a restart everything is published again, and goes on.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from coordinator.app import CoordinatorApp
from coordinator.canary import CanaryComparison, ComparedHead
from coordinator.deployment_shelf import DeploymentShelf, open_head
from coordinator.extension import CoordinatorExtension
from coordinator.frame_desk import DeskPart
from coordinator.rollout import DeviceView, Rollout, RolloutPlan
from coordinator.source_clock import SourceClock
from edge_agent.console.artifact_download import ArtifactDownload
from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.console.worker import Worker
from edge_agent.protocol.feature_message import FeatureMessage
from edge_agent.protocol.frame_message import FrameMessage
from edge_agent.protocol.link import Message, Outgoing
from edge_agent.protocol.topics import FeatureTopic
from edge_agent.protocol.update_messages import (
    DeployReply,
    DeployRequest,
    DesiredMessage,
    NodeUpdate,
    RolloutPhase,
    RolloutStatus,
    SwitchMessage,
    decode_update,
)
from edge_agent.protocol.update_topics import UpdateTopics
from edge_agent.protocol.update_trust import TrustedManifest, TrustPolicy, commit

STEP_INTERVAL_S = 0.1  # how often the machine looks at the fleet
FETCH_PATIENCE_S = 30.0  # without a chunk for so long, who wanted to deploy is gone
MAX_DEVICES = 1024
_log = logging.getLogger("rollout")


class RolloutSteward(CoordinatorExtension):
    """One site's updates. `settled` is told of every change of the active deployment."""

    def __init__(
        self,
        app: CoordinatorApp,
        shelf: DeploymentShelf,
        policy: TrustPolicy,
        worker: Worker,
        trial_s: float,
        settled: Callable[[DeploymentDirectory], None],
    ) -> None:
        self._app, self._shelf, self._policy, self._worker = app, shelf, policy, worker
        self._name = app.settings.coordinator
        self._topics = UpdateTopics(app.topics)
        self._trial_s = trial_s
        self._settled = settled
        self._sources = SourceClock()
        self._updates: dict[str, NodeUpdate] = {}
        self._rollout: Rollout | None = None
        self._comparison: CanaryComparison | None = None
        self._download = ArtifactDownload(shelf.disk, worker, app.link, self._topics, self._name, self._fetched)
        self._fetching: tuple[DeployRequest, TrustedManifest] | None = None
        self._judging = False
        self._fetch_seen = (0.0, 0.0)  # progress, and when it last grew
        self._error = ""
        self._said: dict[str, bytes] = {}
        self._next_step = 0.0
        self._unwritten = 0  # changes of the record that are not on the disk yet
        self._part: DeskPart | None = None
        record = shelf.record.rollout
        if record is not None:
            _log.info("going on with rollout %d, %s", record.plan.rollout, record.phase)
            self._rollout = Rollout(record, self._sources, time.monotonic())
            self._open_lane()

    def subscriptions(self) -> list[tuple[str, int]]:
        """Deploy requests and how far the devices are."""
        return [(self._topics.deploy_request, 1), (self._topics.node("+"), 1)]

    def connected(self) -> None:
        """Say everything again: the broker may have lost it."""
        self._said.clear()
        self._publish()

    def on_frame(self, source: str, frame: FrameMessage, now: float) -> None:
        """Remember how fast the sources count."""
        self._sources.seen(source, frame.frame_id, now)

    def receive(self, message: Message) -> bool:
        """Requests, states of devices, chunks."""
        if self._topics.is_chunk(message.topic):
            self._download.receive(message.topic, message.payload)
        elif message.topic == self._topics.deploy_request:
            if message.payload and not message.retain:
                self._requested(decode_update(DeployRequest, message.payload))
        elif message.topic.startswith(self._app.topics.node("", "")[:-1]) and message.topic.endswith("/update"):
            device, _ = self._app.topics.parse_leaf(message.topic, "node")
            if not message.payload:
                self._updates.pop(device, None)
            elif device in self._updates or len(self._updates) < MAX_DEVICES:
                self._updates[device] = decode_update(NodeUpdate, message.payload)
        else:
            return False
        return True

    def tick(self, now: float) -> None:
        """The worker's results, the download, and every now and then the machine."""
        self._worker.deliver()
        self._download.tick(now)
        if now < self._next_step:
            return
        self._next_step = now + STEP_INTERVAL_S
        if self._fetching is not None:
            self._watch_fetch(now)
        if self._rollout is not None:
            self._step(self._rollout, now)
        self._publish_status()

    def _fleet(self) -> dict[str, DeviceView]:
        return {
            device.name: DeviceView(device.online, device.students, self._updates.get(device.name))
            for device in self._app.roster.devices
        }

    def _step(self, rollout: Rollout, now: float) -> None:
        if rollout.phase == "canary" and self._comparison is None:
            self._start_comparison(rollout)
        if self._comparison is not None:
            rollout.canary = self._comparison.report()
        before = rollout.phase
        if not rollout.step(self._fleet(), now):
            return
        if rollout.phase != "canary":
            self._app.feature_watch = self._comparison = None
        if rollout.phase != before:
            _log.info(
                "rollout %d: %s -> %s %s", rollout.record.plan.rollout, before, rollout.phase, rollout.record.error
            )
        if rollout.done:
            self._finish(rollout)
        else:
            self._open_lane()
            self._change(rollout=rollout.record)

    def _finish(self, rollout: Rollout) -> None:
        plan, shelf = rollout.record.plan, self._shelf
        self._error = rollout.record.error
        active, previous = (plan.target, plan.previous) if rollout.phase == "complete" else (plan.previous, "")
        if rollout.phase == "failed":
            previous = shelf.record.previous if shelf.record.previous != plan.target else ""
        orders = {name: order for name, order in shelf.record.orders.items() if name == active}
        memory = shelf.record.memory
        if rollout.phase == "complete":
            memory = commit(memory, self._trusted(plan.target))
        self._part = None
        self._change(active=active, previous=previous, rollout=None, orders=orders, memory=memory)
        if active in self._app.desk.deployments:
            self._app.settle(shelf.disk.open(active))
            self._settled(self._app.deployment)
        # The machine itself stays until the next request, for what it has to say.
        shelf.drop_others(self._worker, self._stored, active, previous)

    def _open_lane(self) -> None:
        """The desk answers with the target too, as long as a switch goes on."""
        rollout = self._rollout
        if rollout is None or rollout.phase not in ("switching", "reverting"):
            return
        if self._part is None:
            target = self._shelf.disk.open(rollout.record.plan.target)
            self._part = self._app.desk_part(target, open_head(target))
        self._app.desk.add(self._part, rollout.schedule)

    def _trusted(self, deployment: str) -> TrustedManifest:
        """What was judged when it was requested; asked again when it is to be remembered."""
        shelf = self._shelf
        return self._policy.judge(
            shelf.signed_manifest(deployment), shelf.record.orders.get(deployment), shelf.record.memory,
            shelf.disk.manifests(), "", datetime.fromtimestamp(0, UTC),
        )  # fmt: skip

    def _requested(self, request: DeployRequest) -> None:
        if self._busy():
            self._reply(request, "another rollout is under way; wait for its end")
            return
        shelf, now = self._shelf, datetime.now(UTC)
        self._judging = True

        def judge() -> TrustedManifest:
            record, installed = shelf.record, shelf.disk.manifests()
            manifest = request.manifest or shelf.kept_manifest(request.rollback)
            return self._policy.judge(manifest, request.rollback, record.memory, installed, "", now)

        self._worker.submit(judge, lambda result: self._judged(request, result))

    def _busy(self) -> bool:
        return self._judging or self._fetching is not None or (self._rollout is not None and not self._rollout.done)

    def _judged(self, request: DeployRequest, result: TrustedManifest | Exception) -> None:
        self._judging = False
        error = str(result) if isinstance(result, Exception) else self._reason_to_refuse(result, request)
        if error or isinstance(result, Exception):
            _log.warning("deploy refused: %s", error)
            self._reply(request, error)
            return
        shelf, manifest = self._shelf, result.manifest
        self._error, self._rollout = "", None
        self._reply(request, "")
        self._fetching = (request, result)
        if shelf.holds(result.id):
            self._fetched(None)
            return
        # The previous one stays until the new one is final: a stopped canary must not cost the way back.
        shelf.drop_others(self._worker, self._stored, shelf.record.active, shelf.record.previous, result.id)

        def begun(outcome: Exception | None) -> None:
            if outcome is not None:
                self._fetched(outcome)
            else:
                self._fetch_seen = (0.0, time.monotonic())
                self._download.start(request.server, result.id, manifest.files())
                self._publish_status()  # a small bundle is here before the next tick

        self._worker.submit(
            lambda: shelf.disk.begin(result.id, result.content, request.manifest, manifest.files()), begun
        )

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

    def _watch_fetch(self, now: float) -> None:
        share, since = self._fetch_seen
        if self._download.running and self._download.progress > share:
            self._fetch_seen = (self._download.progress, now)
        elif self._download.running and now - since > FETCH_PATIENCE_S:
            self._download.stop()
            self._fetched(TimeoutError(f"no chunk for {FETCH_PATIENCE_S:g} s: who wanted to deploy is gone"))

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
            self._error = f"deployment {trusted.id}: {error}"
            _log.error("%s", self._error)
            return
        self._begin(request, trusted)

    def _begin(self, request: DeployRequest, trusted: TrustedManifest) -> None:
        shelf = self._shelf
        number = max(shelf.record.last_rollout + 1, time.time_ns() // 1000)
        plan = RolloutPlan(
            rollout=number, target=trusted.id, previous=shelf.record.active, students=len(trusted.manifest.students),
            canaries=request.canaries, canary_frames=request.canary_frames, min_agreement=request.min_agreement,
            max_latency_ratio=request.max_latency_ratio, timeout_s=request.timeout_s, trial_s=self._trial_s,
        )  # fmt: skip
        rollout = Rollout.begin(plan, self._sources, time.monotonic())
        orders = dict(shelf.record.orders)
        orders.pop(trusted.id, None)
        if request.rollback is not None:
            orders[trusted.id] = request.rollback
        shelf.index([trusted.id])
        self._rollout = rollout
        self._change(rollout=rollout.record, last_rollout=number, orders=orders)
        _log.info("rollout %d: deployment %s (%s, version %d)", number, trusted.id, trusted.manifest.name,
                  trusted.manifest.version)  # fmt: skip
        self._publish()

    def _start_comparison(self, rollout: Rollout) -> None:
        plan = rollout.record.plan
        old, new = (self._shelf.disk.open(deployment) for deployment in (plan.previous, plan.target))
        sides = [ComparedHead(d.id, d.manifest.classes, open_head(d)) for d in (old, new)]
        fleet = self._fleet()
        students = {name: fleet[name].students for name in plan.canaries if name in fleet and fleet[name].students}
        if len(students) < len(plan.canaries):
            return  # a restart: the canaries' births are still to come
        self._app.read_features_of(new)
        comparison = self._comparison = CanaryComparison(sides[0], sides[1], students)

        def watch(topic: FeatureTopic, message: FeatureMessage) -> None:
            comparison.receive(
                topic.device, topic.deployment, topic.source, message.frame_id, topic.student, message.features,
                message.student_us,
            )  # fmt: skip

        self._app.feature_watch = watch

    def _change(self, **fields: object) -> None:
        """Nothing of it goes out before it is durable."""
        self._unwritten += 1
        self._shelf.change(self._worker, self._changed, **fields)

    def _changed(self, result: Exception | None) -> None:
        self._unwritten -= 1
        self._stored(result)
        self._publish()

    def _stored(self, result: Exception | None) -> None:
        if result is not None:
            # The site goes on; should the coordinator die now, it comes back with the last record that was written.
            _log.error("the store can't be written: %s", result)

    def _publish(self) -> None:
        if self._unwritten:
            return  # it would be taken back if the coordinator died now
        # The switch first: a device that hears of the end of a rollout should know why.
        self._say(self._topics.switch, self._switch().encode())
        self._say(self._topics.desired, self._desired().encode())
        self._publish_status()

    def _switch(self) -> SwitchMessage:
        if self._rollout is not None:
            return self._rollout.switch
        record = self._shelf.record
        return SwitchMessage(rollout=record.last_rollout, deployment=record.active, complete=True)

    def _desired(self) -> DesiredMessage:
        record = self._shelf.record
        deployment, canaries = self._rollout.desired if self._rollout is not None else (record.active, None)
        return DesiredMessage(
            rollout=record.last_rollout, server=self._name, manifest=self._shelf.signed_manifest(deployment),
            rollback=record.orders.get(deployment), canaries=canaries,
        )  # fmt: skip

    def _publish_status(self) -> None:
        if self._unwritten:
            return
        record, rollout = self._shelf.record, self._rollout
        phase: RolloutPhase = "idle" if rollout is None else rollout.phase
        target = rollout.record.plan.target if rollout is not None else None
        waiting: tuple[int, ...] = ()
        if self._fetching is not None:
            phase, target = "fetching", self._fetching[1].id
        elif self._error and rollout is None:
            phase = "failed"
        elif rollout is not None and not rollout.done:
            waiting = rollout.waiting_for(self._fleet())
        fetched = self._download.progress if self._download.running else 0.0
        status = RolloutStatus(
            phase=phase, rollout=record.last_rollout, active=record.active,
            active_version=self._shelf.version(record.active) or 1, previous=record.previous or None,
            previous_version=self._shelf.version(record.previous), target=target,
            progress=round(fetched, 2), waiting_for=waiting,
            canary=rollout.canary if rollout is not None else None, error=self._error,
        )  # fmt: skip
        self._say(self._topics.rollout(self._name), status.encode())

    def _say(self, topic: str, payload: bytes) -> None:
        if self._said.get(topic) != payload and self._app.link.connected:
            self._said[topic] = payload
            self._app.publish(Outgoing(topic, payload, qos=1, retain=True))

    def _reply(self, request: DeployRequest, error: str) -> None:
        reply = DeployReply(transaction=request.transaction, status="error" if error else "ok", error=error)
        self._app.publish(Outgoing(self._topics.deploy_reply, reply.encode(), qos=1))
