"""A whole fleet in one thread: virtual clock, in-memory broker, faults from a seed. The programs are the real ones.

Real: AgentApp, CoordinatorApp with all its parts, every byte on the wire. Replaced at their seams: the link (delays,
losses, repeats, cuts) and the interpreter (features are a function of the image, time passes as told).
"""

import hashlib
import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.app import CoordinatorApp
from coordinator.extension import CoordinatorExtension
from coordinator.feature_merger import FrameKey
from coordinator.settings import CoordinatorSettings
from coordinator.wiring import build_coordinator
from edge_agent.app import AgentApp
from edge_agent.assignment_follower import AssignmentFollower
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.link import Connected, Disconnected, Event, Message, Outgoing
from edge_agent.protocol.prediction_message import PredictionMessage, decode_prediction
from edge_agent.protocol.topics import SiteTopics
from edge_agent.settings import AgentSettings
from edge_agent.student_slot import StudentSlot

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"
LOAD_S = 0.3  # a student from disk to its first answer
TICK_S = 0.25  # as often as the real loops come round without a message
QUANTIZATION = (0.01, -128)


def features_of(image: NDArray[np.uint8], student: int, width: int) -> NDArray[np.int8]:
    """What `student` answers to an image: (width,), int8; different for nearly all images."""
    digest = hashlib.sha256(bytes([student]) + image.tobytes()).digest()
    return np.frombuffer(digest, np.int8)[:width]


@dataclass
class LinkFaults:
    """What may happen to a message on its way."""

    delay_s: float = 0.001
    jitter_s: float = 0.0
    loss: float = 0.0  # of QoS 0; QoS 1 is sent again by the broker
    repeat: float = 0.0


class VirtualRuntime:
    """An interpreter at its seam: answers at once, and makes its device busy."""

    engine, engine_version, quantization = "tflite", "virtual", QUANTIZATION

    def __init__(self, student: int, width: int, shape: tuple[int, int, int], node: "Node") -> None:
        self.student, self.width, self.input_shape, self._node = student, width, shape, node

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        self._node.busy_until = max(self._node.busy_until, self._node.fleet.now) + self._node.student_s
        return features_of(image, self.student, self.width)

    def close(self) -> None:
        self.width = 0  # a closed student that answers would be refused


class SimLink:
    """The link's seam: one client of the broker in memory."""

    def __init__(self, fleet: "Fleet", name: str, subscriptions: Sequence[tuple[str, int]]) -> None:
        self.fleet, self.name = fleet, name
        self.dropped = 0
        self.will: Outgoing | None = None
        self.faults = LinkFaults()
        self.connected = False
        self.cut = False
        self.subscriptions = dict(subscriptions)
        self.inbox: list[tuple[float, int, Event]] = []
        self.queued: list[Outgoing] = []
        self.node: Node | None = None

    def poll(self, timeout_s: float) -> list[Event]:
        events = []
        while self.inbox and self.inbox[0][0] <= self.fleet.now:
            events.append(heapq.heappop(self.inbox)[2])
        return events

    def publish(self, message: Outgoing) -> bool:
        if not self.connected:
            if message.qos == 0:
                self.dropped += 1
                return False
            self.queued.append(message)
            return True
        self.fleet.broker.accept(self, message)
        return True

    def subscribe(self, topic_filter: str, qos: int) -> None:
        self.subscriptions[topic_filter] = qos
        if self.connected:
            self.fleet.broker.send_retained(self, topic_filter)

    def unsubscribe(self, topic_filter: str) -> None:
        self.subscriptions.pop(topic_filter, None)

    def watch(self, descriptor: int) -> None:
        pass

    def close(self, last_words: Sequence[Outgoing] = ()) -> None:
        for message in last_words:
            self.publish(message)
        self.connected = False
        self.fleet.broker.clients.discard(self)

    def connect(self) -> None:
        """Log in: subscribe, hear what is retained, send what waited."""
        if self.connected or self.cut or not self.fleet.broker.up:
            return
        self.connected = True
        self.fleet.broker.clients.add(self)
        self.deliver(Connected("5"), 0.0)
        for topic_filter in self.subscriptions:
            self.fleet.broker.send_retained(self, topic_filter)
        queued, self.queued = self.queued, []
        for message in queued:
            self.publish(message)

    def lose(self, reason: str, will: bool = True) -> None:
        """The connection breaks; the broker publishes the will."""
        if not self.connected:
            return
        self.connected = False
        self.fleet.broker.clients.discard(self)
        self.deliver(Disconnected(reason), 0.0)
        if will and self.will is not None and self.fleet.broker.up:
            self.fleet.broker.route(self.will)

    def deliver(self, event: Event, delay_s: float) -> None:
        at = self.fleet.now + delay_s
        heapq.heappush(self.inbox, (at, next(self.fleet.sequence), event))
        if self.node is not None:
            self.fleet.at(at, self.node.step)


class SimBroker:
    """Topics, wildcards, retained messages."""

    def __init__(self, fleet: "Fleet") -> None:
        self.fleet = fleet
        self.up = True
        self.down_since = 0.0
        self.clients: set[SimLink] = set()
        self.retained: dict[str, Outgoing] = {}
        self.taps: list[Callable[[Outgoing], None]] = []

    def accept(self, sender: SimLink, message: Outgoing) -> None:
        """A client publishes: the message arrives here after the sender's delay, in order."""
        delay_s = self._delay(sender, message)
        if delay_s is None:
            return
        if sender.node is not None:  # results leave when the interpreter is done
            delay_s += max(0.0, sender.node.busy_until - self.fleet.now)
        self.fleet.at(self.fleet.now + delay_s, lambda: self._arrive(sender, message))

    def _arrive(self, sender: SimLink, message: Outgoing) -> None:
        """QoS 1 without an acknowledgement stays with its sender, who sends it again."""
        if self.up:
            self.route(message)
        elif message.qos:
            sender.queued.append(message)

    def route(self, message: Outgoing) -> None:
        """Keep it if it is retained, and pass it on to everybody who asked for it."""
        for tap in self.taps:
            tap(message)
        if message.retain:
            if message.payload:
                self.retained[message.topic] = message
            else:
                self.retained.pop(message.topic, None)
        for client in sorted(self.clients, key=lambda client: client.name):
            if any(matches(topic_filter, message.topic) for topic_filter in client.subscriptions):
                self._send(client, message, retain=False)

    def send_retained(self, client: SimLink, topic_filter: str) -> None:
        for topic, message in list(self.retained.items()):
            if matches(topic_filter, topic):
                self._send(client, message, retain=True)

    def _send(self, client: SimLink, message: Outgoing, retain: bool) -> None:
        copies = 2 if self.fleet.random.random() < client.faults.repeat else 1
        for _ in range(copies):
            delay_s = self._delay(client, message)
            if delay_s is not None:
                incoming = Message(message.topic, message.payload, retain, message.response_topic, message.correlation)
                client.deliver(incoming, delay_s)

    def _delay(self, client: SimLink, message: Outgoing) -> float | None:
        faults, chance = client.faults, self.fleet.random
        if message.qos == 0 and chance.random() < faults.loss:
            return None
        return faults.delay_s + chance.random() * faults.jitter_s


@lru_cache(100_000)
def matches(topic_filter: str, topic: str) -> bool:
    """MQTT's own rules for + and #."""
    levels, wanted = topic.split("/"), topic_filter.split("/")
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(levels) or level not in ("+", levels[position]):
            return False
    return len(levels) == len(wanted)


@dataclass
class Node:
    """One program of the fleet and how its loop comes round."""

    fleet: "Fleet"
    link: SimLink
    app: AgentApp | CoordinatorApp | None = None
    student_s: float = 0.005
    busy_until: float = 0.0
    wake_at: float = 0.0
    stopped: bool = False  # SIGSTOP: it holds its connection and does nothing

    def step(self) -> None:
        """One round of the loop, when the interpreter is free."""
        if self.app is None or self.stopped:
            return
        if self.busy_until > self.fleet.now:
            self._wake(self.busy_until)
            return
        self.app.step(0.0)
        if isinstance(self.app, AgentApp):
            if len(self.app._mailbox):
                self._wake(max(self.fleet.now, self.busy_until))
        else:
            deadline = self.app.desk.next_deadline()
            if deadline is not None:
                self._wake(deadline)

    def _wake(self, when: float) -> None:
        """Come round then, unless that is planned for earlier anyway."""
        if not self.fleet.now < self.wake_at <= when:
            self.wake_at = when
            self.fleet.at(when, self.step)

    def tick(self) -> None:
        """Come round without a message."""
        self.link.connect() if self.app is not None and not self.stopped else None
        self.step()


class AnswerBook(CoordinatorExtension):
    """Notes which frames the real coordinator has opened."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet

    def on_frame(self, source: str, frame: FrameMessage, now: float) -> None:
        self._fleet.opened[source, frame.frame_id] = frame.image


@dataclass
class Fleet:
    """Everything, and the clock."""

    seed: int
    folder: Path
    now: float = 100.0
    opened: dict[FrameKey, NDArray[np.uint8]] = field(default_factory=dict)
    answers: dict[FrameKey, list[PredictionMessage]] = field(default_factory=lambda: defaultdict(list))
    early: list[PredictionMessage] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.sequence = itertools.count()
        self.topics = SiteTopics("home")
        self.deployment = open_deployment(TINY)
        manifest = self.deployment.manifest
        self.head = MergeHead.from_bytes(self.deployment.read(manifest.head), manifest.widths, len(manifest.classes))
        self.shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
        self.broker = SimBroker(self)
        self.broker.taps.append(self._tap)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._sessions = itertools.count(1)
        self._camera = SimLink(self, "camera", [])

    # The clock

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._agenda, (max(when, self.now), next(self.sequence), act))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        next_tick = self.now
        while True:
            due = self._agenda[0][0] if self._agenda else float("inf")
            if min(due, next_tick) > end:
                break
            if next_tick <= due:
                self.now, next_tick = next_tick, next_tick + TICK_S
                for node in list(self.nodes.values()):
                    node.tick()
            else:
                self.now, _, act = heapq.heappop(self._agenda)
                act()
        self.now = end

    # The programs

    def start_coordinator(self, **settings: object) -> None:
        """Start, or start again, the coordinator."""
        chosen = CoordinatorSettings.model_validate(
            {"deployment": TINY, "requests": False, "journal": self.folder / "journal", "away_s": 3, **settings}
        )
        node = self._node("coordinator")
        app = build_coordinator(chosen, self.deployment, self.head, node.link, lambda: self.now)
        app.session = next(self._sessions)
        app.extend(AnswerBook(self))
        self._begin(node, app, app.core_subscriptions(), app.state("offline"))

    def start_agent(self, name: str, students: str, student_s: float = 0.005, **settings: object) -> None:
        """Start, or start again, an agent; `students` as in its setting."""
        chosen = AgentSettings.model_validate(
            {"deployment": TINY, "device": name, "students": students.split(","), **settings}
        )
        node = self._node(name)
        node.student_s = student_s
        fixed = () if chosen.students == "auto" else chosen.students
        slots = [self._slot(index, node) for index in fixed]
        app = AgentApp(chosen, self.deployment.id, slots, node.link, lambda: self.now)
        app.status.session = next(self._sessions)
        if chosen.students == "auto":
            topic = self.topics.node(name, "assignment")
            follower = AssignmentFollower(
                topic,
                lambda index: self._slot(index, node),
                lambda new: app.use(self.deployment.id, new),
                8,
                lambda job, done: self.at(self.now + LOAD_S, lambda: done(job())),
            )
            app.extend(follower)
        self._begin(node, app, app.core_subscriptions(), app.status.state("offline"))

    def kill(self, name: str) -> None:
        """SIGKILL: the connection breaks at once, the will goes out."""
        node = self.nodes.pop(name)
        node.app = None
        node.link.lose("killed")

    def restart_broker(self, down_s: float, keep_retained: bool) -> None:
        """Every connection breaks; wills are not published."""
        self.broker.up, self.broker.down_since = False, self.now
        for client in list(self.broker.clients):
            client.lose("broker gone", will=False)
        if not keep_retained:
            self.broker.retained.clear()
        self.at(self.now + down_s, lambda: setattr(self.broker, "up", True))

    def send_frame(self, source: str, frame_id: int, live: bool = False) -> None:
        """A camera publishes one image."""
        image = np.frombuffer(self.random.randbytes(int(np.prod(self.shape))), np.uint8).reshape(self.shape)
        payload = encode_frame(FrameMessage(frame_id, 0, image, live))
        self.broker.accept(self._camera, Outgoing(self.topics.frame(source), payload))

    def stream(self, source: str, frames_per_s: float, seconds: float, live: bool = False, first_id: int = 1) -> None:
        """A camera for a while."""
        for number in range(int(frames_per_s * seconds)):
            when = self.now + number / frames_per_s
            self.at(when, lambda frame_id=first_id + number: self.send_frame(source, frame_id, live))

    # What must hold

    def check(self) -> Counter[str]:
        """Every opened frame has exactly one answer, and that is what its students give offline; results counted."""
        for key, image in self.opened.items():
            given = self.answers.get(key, [])
            # A frame that comes again gets its answer again, the same one.
            assert len(set(given)) == 1, f"seed {self.seed}: frame {key} has {len(given)} answers: {given}"
            self._check_answer(image, given[0])
        strangers = set(self.answers) - set(self.opened)
        assert not strangers, f"seed {self.seed}: answers to frames never opened: {strangers}"
        return Counter(given[0].result for given in self.answers.values())

    def _check_answer(self, image: NDArray[np.uint8], prediction: PredictionMessage) -> None:
        if prediction.result == "abandoned":
            return
        widths = self.deployment.manifest.widths
        scale, zero_point = QUANTIZATION
        features = {
            s: (features_of(image, s, widths[s]).astype(np.float32) - zero_point) * np.float32(scale)
            for s in prediction.present
        }
        expected = probabilities(*self.head.merge(features))
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5, err_msg=f"seed {self.seed}")

    def _tap(self, message: Outgoing) -> None:
        if not message.topic.startswith(self.topics.prediction("")):
            return
        prediction = decode_prediction(message.payload)
        if message.topic.endswith("/early"):
            self.early.append(prediction)
        else:
            self.answers[prediction.source, prediction.frame_id].append(prediction)

    def _node(self, name: str) -> Node:
        return Node(self, SimLink(self, name, []))

    def _begin(
        self, node: Node, app: AgentApp | CoordinatorApp, subscriptions: list[tuple[str, int]], will: Outgoing
    ) -> None:
        node.app, node.link.node, node.link.will = app, node, will
        node.link.subscriptions.update(subscriptions)
        previous = self.nodes.get(node.link.name)
        if previous is not None:
            node.link.faults = previous.link.faults
            previous.app = None
            previous.link.lose("session taken over")
        self.nodes[node.link.name] = node
        node.tick()

    def _slot(self, index: int, node: Node) -> StudentSlot:
        student = self.deployment.manifest.students[index]
        runtime = VirtualRuntime(index, student.width, self.shape, node)
        return StudentSlot(student, student.artifacts[0], runtime, 0.0)
