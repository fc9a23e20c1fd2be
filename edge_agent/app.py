"""The agent's one loop: frames in, features out, and word of how the device fares."""

import logging
import platform
import time
from collections.abc import Callable, Sequence

from edge_agent import __version__
from edge_agent.console.log import LimitedLog
from edge_agent.health import ServiceNotifier
from edge_agent.inference import feature_message
from edge_agent.mailbox import FrameMailbox, WaitingFrame
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.feature_message import encode_features
from edge_agent.protocol.frame_message import decode_frame
from edge_agent.protocol.link import Connected, Disconnected, Event, Extension, Link, Message, Outgoing
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.status import NodeInfo, NodeState, NodeTelemetry, decode_status
from edge_agent.protocol.topics import SiteTopics
from edge_agent.settings import AgentSettings
from edge_agent.student_slot import StudentSlot
from edge_agent.telemetry import DeviceSensors, LatencyWindow

IDLE_POLL_S = 0.25  # how long a stop request may wait on an idle agent
FEATURE_EXPIRY_S = 2  # features later than this help nobody: no coordinator waits so long
_log = logging.getLogger("agent")


class AgentApp:
    """Wires link, mailbox and students of one process."""

    def __init__(
        self, settings: AgentSettings, deployment_id: str, slots: Sequence[StudentSlot], link: Link | None = None
    ) -> None:
        self._settings = settings
        self._extensions: list[Extension] = []
        self._deployment_id = deployment_id
        self._slots = list(slots)
        self._topics = SiteTopics(settings.site)
        self._protocol = ""
        self._session = time.time_ns() // 1000
        self._state_topic = self._topics.node(settings.device, "state")
        subscriptions = [(self._topics.frame(source), 0) for source in settings.sources]
        self._link: Link = link or MqttLink(
            settings.broker,
            f"nonn-agent-{settings.site}-{settings.device}",
            [*subscriptions, (self._state_topic, 1)],
            will=self._state("offline"),
        )
        self._mailbox = FrameMailbox(settings.mailbox_frames)
        self._limited = LimitedLog(_log)
        self._latency = LatencyWindow()
        self._sensors = DeviceSensors()
        self._notifier = ServiceNotifier()
        self._started = time.monotonic()
        self._next_telemetry = self._started + settings.telemetry_s
        self._received = self._answered = self._refused = 0

    def extend(self, extension: Extension) -> None:
        """Plug a part into the loop, before `run`."""
        self._extensions.append(extension)
        for topic_filter, qos in extension.subscriptions():
            self._link.subscribe(topic_filter, qos)

    def publish(self, message: Outgoing) -> bool:
        """Send or queue a message for an extension; False: dropped."""
        return self._link.publish(message)

    def use(self, deployment_id: str, slots: Sequence[StudentSlot]) -> None:
        """Answer with these students from the next frame on, and say so."""
        self._deployment_id, self._slots = deployment_id, list(slots)
        self._publish_birth()

    def run(self, stopped: Callable[[], bool]) -> None:
        """Answer until `stopped` says so; then leave with an offline state instead of the will."""
        self._notifier.ready("waiting for the broker")
        while not stopped():
            for event in self._link.poll(0.0 if len(self._mailbox) else IDLE_POLL_S):
                self._take(event)
            waiting = self._mailbox.take()
            if waiting is not None:
                self._answer(waiting)
            now = time.monotonic()
            for extension in self._extensions:
                extension.tick(now)
            self._report_when_due()
        self._notifier.stopping()
        self._link.close([self._state("offline")])

    def _take(self, event: Event) -> None:
        match event:
            case Message():
                try:
                    self._receive(event)
                except ProtocolError as error:
                    self._refused += 1
                    self._limited.warn(event.topic, f"refused message: {error}")
            case Connected(protocol):
                _log.info(
                    "connected to %s:%d, MQTT %s", self._settings.broker.host, self._settings.broker.port, protocol
                )
                self._protocol = protocol
                self._publish_birth()
                for extension in self._extensions:
                    extension.connected()
            case Disconnected(reason):
                self._limited.warn("broker", f"no broker: {reason}; trying again")

    def _receive(self, message: Message) -> None:
        if message.topic == self._state_topic:
            # An old session's will may arrive after our birth: say again that we live.
            if message.payload and decode_status(NodeState, message.payload).state == "offline":
                self._link.publish(self._state("online"))
            return
        if any(extension.receive(message) for extension in self._extensions):
            return
        if message.retain:
            self._refused += 1  # a frame somebody retained by mistake: stale by definition
            return
        source, _ = self._topics.parse_leaf(message.topic, "frame")
        frame = decode_frame(message.payload)
        expected = self._slots[0].runtime.input_shape
        if frame.image.shape != expected:
            raise ProtocolError(f"frame of {source}: image {frame.image.shape}, the student expects {expected}")
        self._received += 1
        self._mailbox.put(WaitingFrame(source, frame, time.monotonic()))

    def _answer(self, waiting: WaitingFrame) -> None:
        for slot in self._slots:
            started = time.perf_counter()
            features = slot.runtime.run(waiting.frame.image)
            ended = time.perf_counter()
            student_us = int((ended - started) * 1e6)
            agent_us = max(student_us, int((time.monotonic() - waiting.arrived_s) * 1e6))
            message = feature_message(
                waiting.frame.frame_id, features, slot.runtime.quantization, slot.student.codec, student_us, agent_us
            )
            topic = self._topics.feature(waiting.source, self._deployment_id, slot.student.index, self._settings.device)
            self._link.publish(Outgoing(topic, encode_features(message), expiry_s=FEATURE_EXPIRY_S))
            self._latency.add(student_us / 1000)
        self._answered += 1

    def _report_when_due(self) -> None:
        now = time.monotonic()
        if now < self._next_telemetry:
            return
        self._next_telemetry = now + self._settings.telemetry_s
        telemetry = self._telemetry(now)
        self._link.publish(Outgoing(self._topics.node(self._settings.device, "telemetry"), telemetry.encode()))
        self._notifier.alive(f"{self._answered} frames answered, {telemetry.frames_dropped} dropped")

    def _telemetry(self, now: float) -> NodeTelemetry:
        return NodeTelemetry(
            session=self._session,
            uptime_s=round(now - self._started, 1),
            cpu_percent=self._sensors.cpu_percent(),
            memory_rss_bytes=self._sensors.memory_rss_bytes(),
            memory_available_bytes=self._sensors.memory_available_bytes(),
            temperature_c=self._sensors.temperature_c(),
            throttled=self._sensors.throttled(),
            power_w=self._sensors.power_w(),
            frames_received=self._received,
            frames_answered=self._answered,
            frames_dropped=self._mailbox.dropped + self._link.dropped,
            messages_refused=self._refused,
            queue_length=len(self._mailbox),
            student_ms_p50=self._latency.percentile(50),
            student_ms_p95=self._latency.percentile(95),
        )

    def _publish_birth(self) -> None:
        info = NodeInfo(
            session=self._session,
            agent_version=__version__,
            deployment=self._deployment_id,
            students=tuple(slot.info for slot in self._slots),
            machine=platform.machine(),
            python=platform.python_version(),
            mqtt=self._protocol,
        )
        self._link.publish(Outgoing(self._topics.node(self._settings.device, "info"), info.encode(), 1, retain=True))
        self._link.publish(self._state("online"))

    def _state(self, state: str) -> Outgoing:
        birth = NodeState.model_validate({"state": state, "session": self._session})
        return Outgoing(self._state_topic, birth.encode(), qos=1, retain=True)
