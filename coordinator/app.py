"""The coordinator's loop: frames and features in, exactly one answer a frame out."""

import gc
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

from coordinator.answers import Answerer
from coordinator.birth import coordinator_info
from coordinator.deadlines import AdaptiveDeadlines
from coordinator.extension import CoordinatorExtension
from coordinator.feature_merger import FeatureMerger
from coordinator.frame_desk import Answered, DeskPart, FrameDesk
from coordinator.gathering import PLENTY, gather_s
from coordinator.packed_frames import PackedFrames
from coordinator.roster import Roster
from coordinator.settings import CoordinatorSettings
from coordinator.topic_routes import TopicRoutes
from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.console.log import LimitedLog
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.feature_message import FeatureMessage
from edge_agent.protocol.frame_message import FrameMessage, decode_frame
from edge_agent.protocol.head import MergeHead
from edge_agent.protocol.link import Connected, Disconnected, Event, Link, Message, Outgoing
from edge_agent.protocol.link_choice import open_link
from edge_agent.protocol.pack import decode_pack, packed
from edge_agent.protocol.status import NodeInfo, NodeState, NodeTelemetry, decode_status, is_of_another, says_alive
from edge_agent.protocol.topics import FeatureTopic, SiteTopics

IDLE_POLL_S = 0.25  # how long a stop request may wait on an idle coordinator
REQUEST_SOURCE = "request"  # images of request/classify travel as frames of source request-<coordinator>
_log = logging.getLogger("coordinator")


class CoordinatorApp:
    """Wires link, frame desk and roster of one deployment."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        deployment: DeploymentDirectory,
        head: MergeHead,
        link: Link | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.deployment = deployment
        self.topics = SiteTopics(settings.site)
        self._routes = TopicRoutes(self.topics)
        self.session = time.time_ns() // 1000
        self.request_source = f"{REQUEST_SOURCE}-{settings.coordinator}"[:63].rstrip("-")
        self.roster = Roster()
        self._clock = clock
        self._extensions: list[CoordinatorExtension] = []
        self._frame_watchers: list[CoordinatorExtension] = []  # those who do something with each frame
        self._answer_watchers: list[CoordinatorExtension] = []
        self._last_events = 0  # of the round before
        self.feature_watch: Callable[[FeatureTopic, FeatureMessage], None] | None = None  # a canary run compares
        self.before_answer: Callable[[bytes], None] | None = None  # the journal notes what is about to go out
        self._state_topic = self.topics.coordinator(settings.coordinator, "state")
        self._link: Link = link or open_link(
            settings.broker,
            f"nonn-coordinator-{settings.site}-{settings.coordinator}",
            self.core_subscriptions(),
            will=self.state("offline"),
            coalesce=True,  # the answers of one round leave together
        )
        self._desk = self._open_desk(head)
        manifest = deployment.manifest
        self._image_shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
        self._absent: frozenset[int] = frozenset()
        self._absent_as_of = 0
        self._packed_frames = PackedFrames(settings.max_open_frames)
        self._limited = LimitedLog(_log, clock=clock)

    @property
    def counts(self) -> Counter[str]:
        """Frames, features and messages by what became of them, since the start."""
        return self._desk.counts

    @property
    def link(self) -> Link:
        """The connection, for extensions that subscribe as they go."""
        return self._link

    @property
    def desk(self) -> FrameDesk:
        """Frames in flight and their answers."""
        return self._desk

    @property
    def connected(self) -> bool:
        """Logged in at the broker."""
        return self._link.connected

    def extend(self, extension: CoordinatorExtension) -> None:
        """Plug a part into the loop, before `run`."""
        self._extensions.append(extension)
        if type(extension).on_frame is not CoordinatorExtension.on_frame:
            self._frame_watchers.append(extension)
        if type(extension).on_prediction is not CoordinatorExtension.on_prediction:
            self._answer_watchers.append(extension)
        for topic_filter, qos in extension.subscriptions():
            self._link.subscribe(topic_filter, qos)

    def publish(self, message: Outgoing) -> bool:
        """Send or queue a message for an extension; False: dropped."""
        return self._link.publish(message)

    def watch(self, descriptor: int) -> None:
        """Begin a round of the loop whenever this file descriptor is readable."""
        self._link.watch(descriptor)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Answer until `stopped` says so; frames still open get their answer before the end."""
        # What was loaded for the start stays: without this the collector of cycles looks at all of it again and again,
        # a fifth of the time under full load (docs/decisions/0014).
        gc.freeze()
        while not stopped():
            self.step(IDLE_POLL_S)
        self._publish(self._desk.shut())
        self._link.close([self.state("offline")])

    def step(self, longest_wait_s: float) -> None:
        """One round: wait for the network at most until the next deadline, then act."""
        deadline = self._desk.next_deadline()
        if deadline is not None:
            longest_wait_s = min(longest_wait_s, max(0.0, deadline - self._clock()))
        pause_s = gather_s(self._desk.open_frames, self._desk.oldest_s(self._clock()), self._last_events)
        events = self._link.poll(longest_wait_s, min(longest_wait_s, pause_s))
        self._last_events = PLENTY if self._packed_frames else len(events)
        for event in events:
            self._take(event)
        now = self._clock()
        if deadline is not None:
            self._publish(self._desk.expire(now))
        for extension in self._extensions:
            extension.tick(now)

    def open_frame(self, source: str, frame: FrameMessage) -> None:
        """Start to wait for the students' features of a frame that agents have, or get just now."""
        self._check_shape(source, frame)
        now = self._clock()
        opened, answers = self._desk.open((source, frame.frame_id), frame.live, self._absent_students(), now)
        if opened:
            for extension in self._frame_watchers:
                extension.on_frame(source, frame, now)
        if answers:
            self._publish(answers)

    def core_subscriptions(self) -> list[tuple[str, int]]:
        """What the loop itself listens to."""
        topics = self.topics
        sources = self.settings.sources
        return [
            *((topics.shared_frame(source, self.settings.share_group), 0) for source in sources),
            *((topics.features_of(source), 0) for source in sources),
            (topics.node("+", "state"), 1),
            (topics.node("+", "info"), 1),
            (topics.node("+", "telemetry"), 0),
            (self._state_topic, 1),
        ]

    def state(self, state: str) -> Outgoing:
        """Birth or will."""
        birth = NodeState.model_validate({"state": state, "session": self.session})
        return Outgoing(self._state_topic, birth.encode(), qos=1, retain=True)

    def desk_part(self, deployment: DeploymentDirectory, head: MergeHead) -> DeskPart:
        """What the desk needs to answer with a deployment."""
        settings, manifest = self.settings, deployment.manifest
        self.read_features_of(deployment)
        return DeskPart(
            FeatureMerger(deployment.id, manifest.widths, settings.quorum, settings.max_open_frames),
            Answerer(settings.coordinator, deployment.id, manifest.classes, head),
            tuple(student.golden.tolerance for student in manifest.students),
        )

    def read_features_of(self, deployment: DeploymentDirectory) -> None:
        """From now on features of this deployment can be read: the ranges of their channels are in its manifest."""
        self._routes.read_features_of(deployment.id, deployment.manifest)

    def settle(self, deployment: DeploymentDirectory) -> None:
        """A switch is over: this deployment answers, and the site is told."""
        self._routes.read_only(deployment.id, deployment.manifest)
        self._desk.settle(deployment.id)
        self.deployment = deployment
        self._absent_as_of = -1
        self._publish_birth()

    def _open_desk(self, head: MergeHead) -> FrameDesk:
        settings = self.settings
        longest_s = settings.deadline_ms / 1000
        shortest_s = settings.shortest_deadline_ms / 1000 if settings.adaptive_deadline else longest_s
        return FrameDesk(
            self.desk_part(self.deployment, head),
            AdaptiveDeadlines(shortest_s, longest_s),
            self._clock,
            settings.early_answer,
        )

    def _take(self, event: Event) -> None:
        match event:
            case Message():
                try:
                    self._receive(event)
                except ProtocolError as error:
                    self.counts["messages_refused"] += 1
                    self._limited.warn(event.topic, f"refused message: {error}")
            case Connected(protocol):
                broker = self.settings.broker
                _log.info("connected to %s:%d, MQTT %s", broker.host, broker.port, protocol)
                self._publish_birth()
                for extension in self._extensions:
                    extension.connected()
            case Disconnected(reason):
                self._limited.warn("broker", f"no broker: {reason}; trying again")

    def _receive(self, message: Message) -> None:
        branch = self._routes.branch(message.topic)
        if branch == "feature" and not message.retain:
            self._receive_features(message)
        elif branch == "frame" and not message.retain:
            self._receive_frames(message)
        elif branch == "node":
            self._receive_status(message)
        elif message.topic == self._state_topic:
            # An old session's will may arrive after our birth, or garbage from anywhere: say again that we live.
            if not says_alive(message.payload):
                self._link.publish(self.state("online"))
                decode_status(NodeState, message.payload)  # garbage is refused and counted like any other
            elif is_of_another(message.payload, self.session):
                self._limited.warn("name", f"{self._name_taken()}; stop one, or give it --coordinator NAME")
        elif not any(extension.receive(message) for extension in self._extensions):
            self.counts["messages_refused"] += 1  # retained leftovers where live messages belong

    def _receive_frames(self, message: Message) -> None:
        source, leaf = self._routes.frame(message.topic)
        if leaf or source == self.request_source:  # frames of requests were opened when they were sent
            return
        frames = [decode_frame(one) for one in decode_pack(message.payload)]
        for frame in frames:  # all before the first is opened: a pack is taken whole or not at all
            self._check_shape(source, frame)
        if len(frames) > 1:
            self._packed_frames.add((source, frame.frame_id) for frame in frames)
        for frame in frames:
            self.open_frame(source, frame)

    def _check_shape(self, source: str, frame: FrameMessage) -> None:
        if frame.image.shape != self._image_shape:
            raise ProtocolError(f"frame of {source}: image {frame.image.shape}, expected {self._image_shape}")

    def _receive_features(self, message: Message) -> None:
        topic, found = self._routes.features(message.topic, message.payload)
        desk = self._desk
        desk.counts["feature_bytes"] += len(message.payload)
        answers = desk.receive(topic, found, self._clock())
        if answers:
            self._publish(answers)
        if self.feature_watch is not None:
            for features in found:
                self.feature_watch(topic, features)

    def _name_taken(self) -> str:
        settings = self.settings
        name = f"another coordinator {settings.coordinator!r} of site {settings.site!r}"
        return f"{name} is online, or died a moment ago: two would both answer every frame"

    def _receive_status(self, message: Message) -> None:
        for extension in self._extensions:
            extension.receive(message)
        device, leaf = self.topics.parse_leaf(message.topic, "node")
        if not message.payload:
            if leaf == "state":
                self.roster.forget(device)
        elif leaf == "state":
            state = decode_status(NodeState, message.payload)
            self.roster.state(device, state, self._clock())
            _log.info("%s is %s", device, state.state)
        elif leaf == "info":
            self.roster.info(device, decode_status(NodeInfo, message.payload))
        elif leaf == "telemetry":
            self.roster.telemetry(device, decode_status(NodeTelemetry, message.payload))

    def _absent_students(self) -> frozenset[int]:
        if self._absent_as_of != self.roster.changes:
            self._absent_as_of = self.roster.changes
            self._absent = self.roster.absent(self.deployment.id, len(self.deployment.manifest.students))
        return self._absent

    def _publish(self, answers: Iterable[Answered]) -> None:
        packs: dict[str, list[bytes]] = {}
        for answer in answers:
            prediction = answer.prediction
            if answer.early:
                self._link.publish(Outgoing(self.topics.early_prediction(prediction.source), prediction.encode()))
                continue
            payload = prediction.encode()
            if self.before_answer is not None and not answer.again:
                self.before_answer(payload)
            if self._packed_frames.take((prediction.source, prediction.frame_id)):
                packs.setdefault(prediction.source, []).append(payload)
            else:
                self._link.publish(Outgoing(self.topics.prediction(prediction.source), payload, qos=1))
            if answer.again:
                continue  # told and counted when it was given first
            now = self._clock()
            for extension in self._answer_watchers:
                extension.on_prediction(prediction, answer.merged, now)
        for source, payloads in packs.items():
            for payload in packed(payloads):
                self._link.publish(Outgoing(self.topics.prediction(source), payload, qos=1))

    def _publish_birth(self) -> None:
        info = coordinator_info(self.settings, self.deployment, self.session)
        topic = self.topics.coordinator(self.settings.coordinator, "info")
        self._link.publish(Outgoing(topic, info.encode(), qos=1, retain=True))
        self._link.publish(self.state("online"))
