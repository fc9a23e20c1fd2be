"""The agent's one loop: frames in, features out, and word of how the device fares."""

import gc
import logging
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from edge_agent.console.log import LimitedLog
from edge_agent.console.service_notifier import ServiceNotifier
from edge_agent.feature_outbox import FeatureOutbox, Finished
from edge_agent.inference import are_numbers
from edge_agent.mailbox import FrameMailbox, WaitingFrame
from edge_agent.node_status import FrameCounts, NodeStatus
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.frame_message import FrameMessage, decode_frame
from edge_agent.protocol.link import Connected, Disconnected, Event, Extension, Link, Message, Outgoing
from edge_agent.protocol.link_choice import open_link
from edge_agent.protocol.pack import decode_pack
from edge_agent.protocol.status import NodeState, decode_status, is_of_another, says_alive
from edge_agent.protocol.topics import SiteTopics
from edge_agent.settings import AgentSettings
from edge_agent.stuck_guard import StuckGuard, restart_program
from edge_agent.student_lanes import Lane, StudentLanes
from edge_agent.student_slot import StudentSlot

IDLE_POLL_S = 0.25  # how long a stop request may wait on an idle agent
# While frames wait, students run for a tenth of what the first one has waited, at most so long, before their features
# leave and the network is looked at: a fast one would else spend half as long again on messages (docs/decisions/0016).
# The features of a slower one leave after each run. Frames that came in a pack are run through to its end.
RUN_PART, LONGEST_RUN_S = 0.1, 0.01
PARSED_TOPICS = 1024  # sources of a large site; each frame brings the same topic
_log = logging.getLogger("agent")


class AgentApp:
    """Wires link, mailbox and students of one program."""

    def __init__(
        self,
        settings: AgentSettings,
        deployment_id: str,
        slots: Sequence[StudentSlot],
        link: Link | None = None,
        clock: Callable[[], float] = time.monotonic,
        guard: StuckGuard | None = None,
    ) -> None:
        self.settings = settings
        self.topics = SiteTopics(settings.site)
        self.status = NodeStatus(settings, self.topics)
        self.counts = FrameCounts()
        self.refused_students: tuple[int, ...] = ()
        self.lanes = StudentLanes(deployment_id, slots)
        self._extensions: list[Extension] = []
        self._protocol = ""
        self._clock = clock
        self._link: Link = link or open_link(
            settings.broker,
            f"nonn-agent-{settings.site}-{settings.device}",
            self.core_subscriptions(),
            will=self.status.state("offline"),
            coalesce=True,
        )
        self._outbox = FeatureOutbox(self.topics, settings.device, self._link, clock)
        self._send_by = 0.0
        self._parse_frame = lru_cache(PARSED_TOPICS)(lambda topic: self.topics.parse_leaf(topic, "frame"))
        self._mailbox = FrameMailbox(settings.mailbox_frames)
        self._limited = LimitedLog(_log, clock=clock)
        self._notifier = ServiceNotifier()
        self._guard = guard or StuckGuard(settings.stuck_after_s)
        self._started = clock()
        self._next_report = self._started + self._report_interval_s()
        self._answered_at_report = 0

    def core_subscriptions(self) -> list[tuple[str, int]]:
        """What the loop itself listens to: a device that runs no students needs no frames."""
        sources = self.settings.sources if self.settings.students else ()
        frames = [(self.topics.shared_frame(source, self.settings.share_group), 0) for source in sources]
        return [*frames, (self.status.state_topic, 1)]

    @property
    def link(self) -> Link:
        """The connection, for extensions that subscribe as they go."""
        return self._link

    @property
    def deployment_id(self) -> str:
        """The deployment that it answers with."""
        return self.lanes.current.deployment

    def extend(self, extension: Extension) -> None:
        """Plug a part into the loop, before `run`."""
        self._extensions.append(extension)
        for topic_filter, qos in extension.subscriptions():
            self._link.subscribe(topic_filter, qos)

    def publish(self, message: Outgoing) -> bool:
        """Send or queue a message for an extension; False: dropped."""
        return self._link.publish(message)

    def watch(self, descriptor: int) -> None:
        """Begin a round of the loop whenever this file descriptor is readable."""
        self._link.watch(descriptor)

    def use(self, deployment_id: str, slots: Sequence[StudentSlot]) -> None:
        """Answer with these students from the next frame on, and say so."""
        self.lanes.use(deployment_id, slots)
        self.say_what_runs()

    def run(self, stopped: Callable[[], bool]) -> None:
        """Answer until `stopped` says so; then leave with an offline state instead of the will."""
        gc.freeze()  # what was loaded for the start stays: the collector of cycles need not look at it again and again
        self._notifier.ready("waiting for the broker")
        self._guard.start()
        while not stopped():
            self.step(IDLE_POLL_S)
        self._guard.close()
        self._notifier.stopping()
        self._link.close([self.status.state("offline")])

    def step(self, longest_wait_s: float) -> None:
        """One round: what the network brought, then some of the waiting frames, then whatever is due."""
        for event in self._link.poll(0.0 if len(self._mailbox) else longest_wait_s):
            self._take(event)
        self._answer_waiting()
        now = self._clock()
        self.status.energy.tick(now)
        for extension in self._extensions:
            extension.tick(now)
        if now >= self._next_report:
            self._report(now)

    def _take(self, event: Event) -> None:
        match event:
            case Message():
                try:
                    self._receive(event)
                except ProtocolError as error:
                    self.counts.refused += 1
                    self._limited.warn(event.topic, f"refused message: {error}")
            case Connected(protocol):
                broker = self.settings.broker
                _log.info("connected to %s:%d, MQTT %s", broker.host, broker.port, protocol)
                self._protocol = protocol
                self.say_what_runs()
                self._link.publish(self.status.state("online"))
                for extension in self._extensions:
                    extension.connected()
            case Disconnected(reason):
                self._limited.warn("broker", f"no broker: {reason}; trying again")

    def _receive(self, message: Message) -> None:
        if message.topic == self.status.state_topic:
            # An old session's will may arrive after our birth, or garbage from anywhere: say again that we live.
            if not says_alive(message.payload):
                self._link.publish(self.status.state("online"))
                decode_status(NodeState, message.payload)  # garbage is refused and counted like any other
            elif is_of_another(message.payload, self.status.session):
                name = f"another device {self.settings.device!r} of site {self.settings.site!r}"
                self._limited.warn(
                    "name", f"{name} is online, or died a moment ago; stop one, or give it --device NAME"
                )
            return
        if any(extension.receive(message) for extension in self._extensions):
            return
        if message.retain:
            self.counts.refused += 1  # a frame somebody retained by mistake: stale by definition
            return
        self._receive_frames(message)

    def _receive_frames(self, message: Message) -> None:
        source, leaf = self._parse_frame(message.topic)
        if leaf or not self.lanes.current.slots:
            return
        frames = [self._fitting(source, decode_frame(one)) for one in decode_pack(message.payload)]
        self.counts.received += len(frames)
        now, packed = self._clock(), len(frames) > 1
        for left, frame in enumerate(frames, 1 - len(frames)):
            self._mailbox.put(WaitingFrame(source, frame, now, packed, followed=left < 0))

    def _fitting(self, source: str, frame: FrameMessage) -> FrameMessage:
        expected = self.lanes.current.slots[0].runtime.input_shape
        if frame.image.shape != expected:
            raise ProtocolError(f"frame of {source}: image {frame.image.shape}, the student expects {expected}")
        return frame

    def _answer_waiting(self) -> None:
        """One frame if there is one; more to its pack's end, or while they take less than a tenth of what it waited."""
        waiting = self._mailbox.take()
        if waiting is None:
            return
        self._link.flush()  # what is to be said does not wait for a student
        self._send_by = float("inf")
        while waiting is not None:
            self._send_by = min(self._send_by, self._latest(waiting))
            self._answer(waiting)
            ended = waiting.packed and not waiting.followed
            waiting = None if ended or self._clock() >= self._send_by else self._mailbox.take()
        self._outbox.send()

    def _latest(self, waiting: WaitingFrame) -> float:
        """When the features of a frame leave at the latest, or once its student has run."""
        now = self._clock()
        return now + (LONGEST_RUN_S if waiting.packed else min(LONGEST_RUN_S, RUN_PART * (now - waiting.arrived_s)))

    def _answer(self, waiting: WaitingFrame) -> None:
        self._run_lane(self.lanes.answering(waiting.source, waiting.frame.frame_id), waiting)
        self.counts.answered += 1
        shadow = self.lanes.shadowing
        if shadow is not None and not len(self._mailbox):  # a canary must not make live frames wait
            self._run_lane(shadow, waiting)

    def _run_lane(self, lane: Lane, waiting: WaitingFrame) -> None:
        for slot in lane.slots:
            self._guard.begin()
            started = time.perf_counter()
            features = slot.runtime.run(waiting.frame.image)
            student_us = int((time.perf_counter() - started) * 1e6)
            self._guard.end()
            if not are_numbers(features):
                self.counts.refused += 1  # quantised, NaN would look like a number
                self._limited.warn(f"student {slot.student.index}", f"{slot.artifact.file}: features are no numbers")
                continue
            self._outbox.add(Finished(waiting, lane.deployment, slot, features, student_us))
            if not (len(self._mailbox) or waiting.packed) or self._clock() >= self._send_by:
                self._outbox.send()
            self.counts.latency.add(student_us / 1000)

    def _report_interval_s(self) -> float:
        """Telemetry's own, or half of systemd's patience if that is shorter."""
        watchdog_s = self._notifier.watchdog_s
        return self.settings.telemetry_s if watchdog_s is None else min(self.settings.telemetry_s, watchdog_s / 2)

    def _report(self, now: float) -> None:
        self._next_report = now + self._report_interval_s()
        dropped = self._mailbox.dropped + self._link.dropped
        self._link.publish(self.status.telemetry(now - self._started, self.counts, dropped, len(self._mailbox)))
        if self.counts.answered == self._answered_at_report:
            self._probe()
        self._answered_at_report = self.counts.answered
        self._notifier.alive(f"{self.counts.answered} frames answered, {dropped} dropped")

    def _probe(self) -> None:
        """No frame proved since the last report that the students work: let the golden input prove it."""
        for slot in self.lanes.current.slots:
            self._guard.begin()
            works = slot.works()
            self._guard.end()
            if not works:
                restart_program(f"student {slot.student.index} no longer gives its golden features")

    def say_what_runs(self) -> None:
        """Publish the retained info."""
        lane = self.lanes.current
        self._link.publish(self.status.info(lane.deployment, lane.slots, self.refused_students, self._protocol))
