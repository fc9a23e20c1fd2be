"""Steady frames from one source and a book of their answers, for the chaos suite."""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.fleet_messages import CoordinatorTelemetry
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.json_message import decode_json
from edge_agent.protocol.link import Message, Outgoing
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.pack import decode_pack, packed
from edge_agent.protocol.prediction_message import PredictionMessage, decode_prediction
from edge_agent.protocol.topics import SiteTopics

GRACE_S = 4.0  # after the last frame, for answers that wait in a queue behind a broker that comes back


@dataclass
class Sent:
    """One frame and what came of it."""

    at_s: float
    answers: list[tuple[float, PredictionMessage]] = field(default_factory=list)


class Load:
    """Call `run` to let time pass: frames go out at `frames_per_s`, answers are noted."""

    def __init__(
        self, port: int, shape: tuple[int, int, int], source: str = "chaos", frames_per_s: float = 20.0
    ) -> None:
        self.topics = SiteTopics("home")
        self.link = MqttLink(
            BrokerSettings(port=port),
            f"nonn-{source}",
            [
                (self.topics.prediction(source), 1),
                (self.topics.node("+", "state"), 1),
                (self.topics.coordinator("main", "telemetry"), 0),
            ],
        )
        self.source = source
        self.frames: dict[int, Sent] = {}
        self.states: dict[str, bytes] = {}
        self.opened: dict[int, int] = {}  # by session of the coordinator, as its telemetry says
        self.answered: set[int] = set()
        self._reports = 0
        self._interval_s = 1 / frames_per_s
        self._next_id = time.time_ns() // 1000
        self._due = time.monotonic()
        self.together = 1  # frames of a message; those that wait for it to be full are due with its last one
        self._waiting: list[tuple[int, bytes]] = []
        self._image = np.random.default_rng(4).integers(0, 256, shape).astype(np.uint8)

    def run(self, seconds: float, sending: bool = True) -> None:
        """Send and listen."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if sending and now >= self._due:
                self._due = max(self._due + self._interval_s, now - self._interval_s)
                self.send(now)
            for event in self.link.poll(max(0.0, min(end, self._due if sending else end) - now)):
                if isinstance(event, Message):
                    self._take(event)

    def send(self, now: float) -> None:
        """One frame, or the pack that it makes full; not counted if the link drops it."""
        self._next_id += 1
        frame = FrameMessage(self._next_id, time.time_ns() // 1000, self._image)
        self._waiting.append((self._next_id, encode_frame(frame)))
        if len(self._waiting) < self.together:
            return
        waiting, self._waiting = self._waiting, []
        for payload in packed(payload for _, payload in waiting):
            if self.link.publish(Outgoing(self.topics.frame(self.source), payload)):
                self.frames.update((frame_id, Sent(now)) for frame_id, _ in waiting)

    def wait_until_complete(self, patience_s: float, in_a_row: int = 5) -> float | None:
        """Seconds until that many frames sent one after the other were all answered completely; None: never."""
        started = time.monotonic()
        while time.monotonic() - started < patience_s:
            self.run(0.05)
            row: list[float] = []
            for sent in self.frames.values():
                if sent.at_s < started:
                    continue
                if not sent.answers or sent.answers[0][1].result != "complete":
                    row = []
                    continue
                row.append(sent.answers[0][0])
                if len(row) == in_a_row:
                    return max(0.0, row[0] - started)
        return None

    def settle(self) -> None:
        """No more frames; wait for the answers under way and for telemetry that has counted them."""
        self.run(GRACE_S, sending=False)
        self._reports = 0
        end = time.monotonic() + 10 * GRACE_S
        while self._reports < 2 and time.monotonic() < end:
            self.run(0.1, sending=False)
        self._due = time.monotonic()

    @property
    def lost(self) -> int:
        """Frames that coordinators say they have opened, less those answered; of all time.

        A killed coordinator's last frames are answered without having been reported: then it is too small.
        """
        return sum(self.opened.values()) - len(self.answered)

    def count(self, since_s: float) -> Counter[str]:
        """Frames sent since then by result; `silent`: without an answer."""
        counts: Counter[str] = Counter()
        for sent in self.frames.values():
            if sent.at_s < since_s:
                continue
            if len(sent.answers) > 1:  # the same answer delivered again is QoS 1 at work; another answer is a fault
                same = all(prediction == sent.answers[0][1] for _, prediction in sent.answers)
                counts["redelivered" if same else "repeated"] += 1
            if sent.answers:
                prediction = sent.answers[0][1]
                reason = f" ({prediction.reason})" if prediction.reason else ""
                counts[prediction.result + reason] += 1
            else:
                counts["silent"] += 1
        return counts

    def _take(self, message: Message) -> None:
        if message.topic.endswith("/state"):
            self.states[message.topic] = message.payload
            return
        if message.topic.endswith("/telemetry"):
            with suppress(ProtocolError):  # the suite itself sends garbage there
                self._reported(decode_json(CoordinatorTelemetry, message.payload))
            return
        for payload in decode_pack(message.payload):
            prediction = decode_prediction(payload)
            self.answered.add(prediction.frame_id)
            sent = self.frames.get(prediction.frame_id)
            if sent is not None:
                sent.answers.append((time.monotonic(), prediction))

    def _reported(self, telemetry: CoordinatorTelemetry) -> None:
        if "frames_opened" in telemetry.counts:
            self.opened[telemetry.session] = telemetry.counts["frames_opened"]
        self._reports += telemetry.open_frames == 0
