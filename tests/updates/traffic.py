"""Sources that send frames at a steady rate while something happens to their site, and all answers to them."""

import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from leftovers import OPEN
from made_deployments import OfflineAnswers

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.link import Message, Outgoing
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.prediction_message import PredictionMessage, decode_prediction
from edge_agent.protocol.topics import SiteTopics

RESEND_S = 1.5  # a source that got no answer sends its frame again: broker or coordinator were away
GIVE_UP_S = 15.0


@dataclass
class Sent:
    image: int
    at_s: float
    first_s: float
    patience_s: float = RESEND_S


@dataclass
class Traffic:
    """Sources that send numbered frames at a steady rate from a thread and keep every answer."""

    port: int
    sources: tuple[str, ...] = ("door", "yard")
    rate: float = 15.0
    resend: bool = True
    site: str = "home"
    answers: dict[tuple[str, int], list[PredictionMessage]] = field(default_factory=dict)
    images: dict[tuple[str, int], int] = field(default_factory=dict)
    round_trips: list[tuple[float, float]] = field(default_factory=list)  # (when sent, seconds)
    resent: int = 0

    def __post_init__(self) -> None:
        generator = np.random.default_rng(11)
        self.pool = [generator.integers(0, 256, (8, 8, 1)).astype(np.uint8) for _ in range(16)]
        self._stop, self._sending = threading.Event(), True
        self._waiting: dict[tuple[str, int], Sent] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Traffic":
        OPEN.append(self.stop)
        self._thread.start()
        return self

    def stop(self) -> None:
        """At once, whatever is under way."""
        self._stop.set()
        self._thread.join()

    def finish(self) -> None:
        """Send nothing new, wait for what is under way."""
        self._sending = False
        deadline = time.monotonic() + GIVE_UP_S
        while self._waiting and time.monotonic() < deadline:
            time.sleep(0.05)
        self.stop()

    @property
    def lost(self) -> list[tuple[str, int]]:
        return [key for key in self.images if key not in self.answers]

    @property
    def repeated(self) -> list[tuple[str, int]]:
        return [key for key, found in self.answers.items() if len({a.model_dump_json() for a in found}) > 1]

    def results(self) -> Counter[str]:
        return Counter(found[0].result for found in self.answers.values())

    def deployments(self) -> Counter[str]:
        return Counter(found[0].deployment for found in self.answers.values())

    def mixed(self, offline: OfflineAnswers) -> list[tuple[str, int]]:
        return [
            key
            for key, found in self.answers.items()
            if any(a.result != "abandoned" and not offline.fits(a, self.pool[self.images[key]]) for a in found)
        ]

    def _run(self) -> None:
        topics = SiteTopics(self.site)
        link = MqttLink(
            BrokerSettings(port=self.port),
            f"traffic-{os.getpid()}-{self.port}",
            [(topics.prediction(source), 1) for source in self.sources],
        )
        number, start = 0, time.monotonic()
        first_id = time.time_ns() // 1_000_000  # grows over restarts of a source, as the protocol asks
        while not self._stop.is_set():
            now = time.monotonic()
            due = start + number / self.rate / len(self.sources)
            if self._sending and link.connected and now >= due:
                if now > due + 0.5:
                    start += now - due  # not a burst after the broker was away
                key = (self.sources[number % len(self.sources)], first_id + number)
                image = number % len(self.pool)
                self.images[key] = image
                self._waiting[key] = Sent(image, now, now)
                self._send(link, topics, key, image)
                number += 1
            for event in link.poll(max(0.0, min(0.02, due - now))):
                if isinstance(event, Message) and not event.retain:
                    self._answered(topics, event)
            if self.resend and link.connected:
                self._send_again(link, topics)
        link.close()

    def _send(self, link: MqttLink, topics: SiteTopics, key: tuple[str, int], image: int) -> None:
        frame = FrameMessage(key[1], time.time_ns() // 1000, self.pool[image])
        link.publish(Outgoing(topics.frame(key[0]), encode_frame(frame)))

    def _send_again(self, link: MqttLink, topics: SiteTopics) -> None:
        now = time.monotonic()
        for key, sent in list(self._waiting.items()):
            if now - sent.at_s > sent.patience_s:
                sent.at_s = now
                sent.patience_s *= 2  # a slow site is not helped by more frames
                self.resent += 1
                self._send(link, topics, key, sent.image)

    def _answered(self, topics: SiteTopics, event: Message) -> None:
        source, leaf = topics.parse_leaf(event.topic, "prediction")
        if leaf:
            return
        prediction = decode_prediction(event.payload)
        key = (source, prediction.frame_id)
        self.answers.setdefault(key, []).append(prediction)
        sent = self._waiting.pop(key, None)
        if sent is not None:
            self.round_trips.append((sent.first_s, time.monotonic() - sent.first_s))
