"""The coordinator's loop: frames and features in, exactly one answer a frame out."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

from coordinator.answers import Answerer
from coordinator.extension import CoordinatorExtension
from coordinator.feature_merger import (
    Contribution,
    FeatureIgnored,
    FeatureMerger,
    FrameAbandoned,
    FrameIgnored,
    FrameMerged,
    MergerEvent,
)
from coordinator.roster import Roster
from coordinator.settings import CoordinatorSettings
from edge_agent import __version__
from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.console.log import LimitedLog
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.feature_message import decode_features
from edge_agent.protocol.frame_message import decode_frame
from edge_agent.protocol.head import MergeHead
from edge_agent.protocol.link import Connected, Disconnected, Event, Link, Message, Outgoing
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.prediction_message import PredictionMessage
from edge_agent.protocol.status import CoordinatorInfo, NodeInfo, NodeState, NodeTelemetry, decode_status
from edge_agent.protocol.topics import SiteTopics

IDLE_POLL_S = 0.25  # how long a stop request may wait on an idle coordinator
_log = logging.getLogger("coordinator")


class CoordinatorApp:
    """Wires link, merger and head of one deployment."""

    def __init__(
        self, settings: CoordinatorSettings, deployment: DeploymentDirectory, head: MergeHead, link: Link | None = None
    ) -> None:
        self._settings = settings
        self._extensions: list[CoordinatorExtension] = []
        self._deployment = deployment
        self._topics = SiteTopics(settings.site)
        self._session = time.time_ns() // 1000
        self._state_topic = self._topics.coordinator(settings.coordinator, "state")
        self._link: Link = link or MqttLink(
            settings.broker,
            f"nonn-coordinator-{settings.site}-{settings.coordinator}",
            self._subscriptions(),
            will=self._state("offline"),
        )
        manifest = deployment.manifest
        self._answerer = Answerer(settings.coordinator, deployment.id, manifest.classes, head)
        self._merger = FeatureMerger(deployment.id, manifest.widths, settings.quorum, settings.max_open_frames)
        self._image_shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
        self._roster = Roster()
        self._limited = LimitedLog(_log)
        self.counts: Counter[str] = Counter()

    @property
    def roster(self) -> Roster:
        """Who is alive and what it runs."""
        return self._roster

    def extend(self, extension: CoordinatorExtension) -> None:
        """Plug a part into the loop, before `run`."""
        self._extensions.append(extension)
        for topic_filter, qos in extension.subscriptions():
            self._link.subscribe(topic_filter, qos)

    def publish(self, message: Outgoing) -> bool:
        """Send or queue a message for an extension; False: dropped."""
        return self._link.publish(message)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Answer until `stopped` says so."""
        while not stopped():
            for event in self._link.poll(self._patience_s()):
                self._take(event)
            now = time.monotonic()
            self._act(self._merger.expire(now))
            for extension in self._extensions:
                extension.tick(now)
        self._link.close([self._state("offline")])

    def _subscriptions(self) -> list[tuple[str, int]]:
        topics = self._topics
        sources = self._settings.sources
        return [
            *((topics.frame(source), 0) for source in sources),
            *((topics.features_of(source), 0) for source in sources),
            (topics.node("+", "state"), 1),
            (topics.node("+", "info"), 1),
            (topics.node("+", "telemetry"), 0),
            (self._state_topic, 1),
        ]

    def _patience_s(self) -> float:
        deadline = self._merger.next_deadline()
        return IDLE_POLL_S if deadline is None else min(IDLE_POLL_S, max(0.0, deadline - time.monotonic()))

    def _take(self, event: Event) -> None:
        match event:
            case Message():
                try:
                    self._receive(event)
                except ProtocolError as error:
                    self.counts["messages_refused"] += 1
                    self._limited.warn(event.topic, f"refused message: {error}")
            case Connected(protocol):
                _log.info(
                    "connected to %s:%d, MQTT %s", self._settings.broker.host, self._settings.broker.port, protocol
                )
                self._publish_birth()
                for extension in self._extensions:
                    extension.connected()
            case Disconnected(reason):
                self._limited.warn("broker", f"no broker: {reason}; trying again")

    def _receive(self, message: Message) -> None:
        own = message.topic.startswith(self._topics.root + "/")
        branch = self._topics.relative(message.topic)[0] if own else ""  # extensions may listen elsewhere
        if branch == "feature" and not message.retain:
            self._receive_feature(message)
        elif branch == "frame" and not message.retain:
            self._receive_frame(message)
        elif branch == "node":
            self._receive_status(message)
        elif message.topic == self._state_topic:
            # An old session's will may arrive after our birth: say again that we live.
            if message.payload and decode_status(NodeState, message.payload).state == "offline":
                self._link.publish(self._state("online"))
        elif not any(extension.receive(message) for extension in self._extensions):
            self.counts["messages_refused"] += 1  # retained leftovers where live messages belong

    def _receive_frame(self, message: Message) -> None:
        source, _ = self._topics.parse_leaf(message.topic, "frame")
        frame = decode_frame(message.payload)
        if frame.image.shape != self._image_shape:
            raise ProtocolError(f"frame of {source}: image {frame.image.shape}, expected {self._image_shape}")
        now = time.monotonic()
        self.counts["frames_opened"] += 1
        for extension in self._extensions:
            extension.on_frame(source, frame, now)
        self._act(self._merger.open_frame((source, frame.frame_id), now, now + self._settings.deadline_ms / 1000))

    def _receive_feature(self, message: Message) -> None:
        topic = self._topics.parse_feature(message.topic)
        features = decode_features(message.payload)
        contribution = Contribution(
            topic.device, features.features, features.student_us / 1e6, features.agent_us / 1e6, time.monotonic()
        )
        key = (topic.source, features.frame_id)
        self._act(self._merger.receive(key, topic.deployment, topic.student, contribution))

    def _receive_status(self, message: Message) -> None:
        device, leaf = self._topics.parse_leaf(message.topic, "node")
        for extension in self._extensions:
            extension.receive(message)
        if not message.payload:
            self._roster.forget(device)
        elif leaf == "state":
            self._roster.state(device, decode_status(NodeState, message.payload))
            _log.info("%s is %s", device, "online" if self._online(device) else "offline")
        elif leaf == "info":
            self._roster.info(device, decode_status(NodeInfo, message.payload))
        elif leaf == "telemetry":
            self._roster.telemetry(device, decode_status(NodeTelemetry, message.payload))

    def _online(self, name: str) -> bool:
        return any(device.online for device in self._roster.devices if device.name == name)

    def _act(self, events: Iterable[MergerEvent]) -> None:
        for event in events:
            match event:
                case FrameMerged():
                    self._publish(self._answerer.answer(event, time.monotonic), event)
                case FrameAbandoned():
                    self._publish(self._answerer.abandoned(event, time.monotonic()), None)
                case FeatureIgnored():
                    self.counts[f"features_{event.reason}"] += 1
                case FrameIgnored():
                    self.counts["frames_repeated"] += 1

    def _publish(self, prediction: PredictionMessage, merged: FrameMerged | None) -> None:
        self.counts[f"frames_{prediction.result}"] += 1
        self._link.publish(Outgoing(self._topics.prediction(prediction.source), prediction.encode(), qos=1))
        now = time.monotonic()
        for extension in self._extensions:
            extension.on_prediction(prediction, merged, now)

    def _publish_birth(self) -> None:
        manifest = self._deployment.manifest
        info = CoordinatorInfo(
            session=self._session,
            coordinator_version=__version__,
            deployment=self._deployment.id,
            deployment_name=manifest.name,
            classes=manifest.classes,
            height=manifest.input.height,
            width=manifest.input.width,
            channels=manifest.input.channels,
            students=len(manifest.students),
            deadline_ms=self._settings.deadline_ms,
        )
        topic = self._topics.coordinator(self._settings.coordinator, "info")
        self._link.publish(Outgoing(topic, info.encode(), qos=1, retain=True))
        self._link.publish(self._state("online"))

    def _state(self, state: str) -> Outgoing:
        birth = NodeState.model_validate({"state": state, "session": self._session})
        return Outgoing(self._state_topic, birth.encode(), qos=1, retain=True)
