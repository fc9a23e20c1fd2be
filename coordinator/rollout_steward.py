"""Steers a rollout: shows the fleet to its machine and lets its notices say what the machine says.

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
from coordinator.rollout import Rollout
from coordinator.rollout_intake import RolloutIntake
from coordinator.rollout_notices import RolloutNotices, Situation
from coordinator.rollout_record import DeviceView, RolloutPlan
from coordinator.source_clock import SourceClock
from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.console.worker import Worker
from edge_agent.protocol.feature_message import FeatureMessage
from edge_agent.protocol.frame_message import FrameMessage
from edge_agent.protocol.link import Message
from edge_agent.protocol.topics import FeatureTopic
from edge_agent.protocol.update_messages import DeployRequest, NodeUpdate, decode_update
from edge_agent.protocol.update_topics import UpdateTopics
from edge_agent.protocol.update_trust import TrustedManifest, TrustPolicy, commit

STEP_INTERVAL_S = 0.1  # how often the machine looks at the fleet
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
        self._topics = UpdateTopics(app.topics)
        self._trial_s = trial_s
        self._settled = settled
        self._sources = SourceClock()
        self._updates: dict[str, NodeUpdate] = {}
        self._rollout: Rollout | None = None
        self._comparison: CanaryComparison | None = None
        self._notices = RolloutNotices(app, shelf, worker, self._situation)
        self._intake = RolloutIntake(
            app, shelf, policy, worker,
            self._notices.stored, self._accepted, self._notices.publish_status, self._begin,
        )  # fmt: skip
        self._next_step = 0.0
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
        self._notices.say_again()

    def on_frame(self, source: str, frame: FrameMessage, now: float) -> None:
        """Remember how fast the sources count."""
        self._sources.seen(source, frame.frame_id, now)

    def receive(self, message: Message) -> bool:
        """Requests, states of devices, chunks."""
        if self._topics.is_chunk(message.topic):
            self._intake.receive_chunk(message.topic, message.payload)
        elif message.topic == self._topics.deploy_request:
            if message.payload and not message.retain:
                self._intake.take(decode_update(DeployRequest, message.payload), self._under_way)
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
        self._intake.tick(now)
        if now < self._next_step:
            return
        self._next_step = now + STEP_INTERVAL_S
        self._intake.watch_fetch(now)
        if self._rollout is not None:
            self._step(self._rollout, now)
        self._notices.publish_status()

    @property
    def _under_way(self) -> bool:
        return self._rollout is not None and not self._rollout.done

    def _situation(self) -> Situation:
        rollout, intake = self._rollout, self._intake
        error, waiting = intake.error, tuple[int, ...]()
        if rollout is not None:
            error = rollout.record.error if rollout.done else ""
            waiting = rollout.waiting_for(self._fleet()) if not rollout.done and intake.target is None else ()
        return Situation(rollout, intake.target, intake.progress, waiting, error)

    def _accepted(self) -> None:
        self._rollout = None

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
            self._notices.change(rollout=rollout.record)

    def _finish(self, rollout: Rollout) -> None:
        plan, shelf = rollout.record.plan, self._shelf
        active, previous = (plan.target, plan.previous) if rollout.phase == "complete" else (plan.previous, "")
        if rollout.phase == "failed":
            previous = shelf.record.previous if shelf.record.previous != plan.target else ""
        orders = {name: order for name, order in shelf.record.orders.items() if name == active}
        memory = shelf.record.memory
        if rollout.phase == "complete":
            memory = commit(memory, self._trusted(plan.target))
        self._part = None
        self._notices.change(active=active, previous=previous, rollout=None, orders=orders, memory=memory)
        if active in self._app.desk.deployments:
            self._app.settle(shelf.disk.open(active))
            self._settled(self._app.deployment)
        # The machine itself stays until the next request, for what it has to say.
        shelf.drop_others(self._worker, self._notices.stored, active, previous)

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
        self._notices.change(rollout=rollout.record, last_rollout=number, orders=orders)
        _log.info("rollout %d: deployment %s (%s, version %d)", number, trusted.id, trusted.manifest.name,
                  trusted.manifest.version)  # fmt: skip
        self._notices.publish()

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
