"""A whole fleet in one thread: virtual clock, in-memory broker, faults from a seed. The programs are the real ones.

Real: AgentApp, CoordinatorApp with all its parts, every byte on the wire. Replaced at their seams: the link (delays,
losses, repeats, cuts) and the interpreter (features are a function of the image, time passes as told).
"""

import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from simulated_broker import SimBroker, SimLink
from simulated_programs import QUANTIZATION, AnswerBook, Node, VirtualRuntime, features_of

from coordinator.app import CoordinatorApp
from coordinator.feature_merger import FrameKey
from coordinator.settings import CoordinatorSettings
from coordinator.wiring import build_coordinator
from edge_agent.app import AgentApp
from edge_agent.assignment_follower import AssignmentFollower
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.link import Outgoing
from edge_agent.protocol.pack import decode_pack, encode_pack
from edge_agent.protocol.prediction_message import PredictionMessage, decode_prediction
from edge_agent.protocol.topics import SiteTopics
from edge_agent.settings import AgentSettings
from edge_agent.student_slot import StudentSlot

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"
LOAD_S = 0.3  # a student from disk to its first answer
TICK_S = 0.25  # as often as the real loops come round without a message


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
        app = AgentApp(chosen, self.deployment.id, slots, node.link, lambda: max(self.now, node.busy_until))
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
        self.broker.accept(self._camera, Outgoing(self.topics.frame(source), self._frame(frame_id, live)))

    def send_pack(self, source: str, frame_ids: range) -> None:
        """A client publishes several images in one message."""
        payload = encode_pack([self._frame(frame_id, live=False) for frame_id in frame_ids])
        self.broker.accept(self._camera, Outgoing(self.topics.frame(source), payload))

    def _frame(self, frame_id: int, live: bool) -> bytes:
        image = np.frombuffer(self.random.randbytes(int(np.prod(self.shape))), np.uint8).reshape(self.shape)
        return encode_frame(FrameMessage(frame_id, 0, image, live))

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
        for payload in decode_pack(message.payload):
            prediction = decode_prediction(payload)
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
