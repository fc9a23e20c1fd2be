"""The other end of a boot test: somebody who watches one device and sends frames to its site."""

import socket
import time
from collections import Counter
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.device_card import CARD_FILE
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.feature_message import FeatureMessage, decode_features
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.mqtt_link import Message, MqttLink, Outgoing
from edge_agent.protocol.prediction_message import PredictionMessage, decode_prediction
from edge_agent.protocol.status import CoordinatorInfo, NodeInfo, NodeState, decode_status
from edge_agent.protocol.topics import SiteTopics
from edge_agent.protocol.update_messages import NodeUpdate, decode_update
from firmware_images import programs
from firmware_images.disk_files import image_extents, write_fat_file
from firmware_images.first_boot.card_deployment import CARD_FOLDER

HOST_SEEN_BY_GUEST = "10.0.2.2"  # QEMU's user network maps it to the host's loopback
SITE = "boot-test"
# One of the two sources that a coordinator may publish as: the observer logs in with its certificate.
SOURCE = "dashboard"
POLL_S = 0.2
COORDINATOR = "main"  # what `init` calls it


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Birth:
    """A device, or a coordinator, that said it is there."""

    session: int
    info: NodeInfo | CoordinatorInfo


class SiteObserver:
    """Watches one device and sends frames to its site; `births_of`: whose starts are waited for."""

    def __init__(self, login: BrokerSettings, device: str, births_of: Literal["device", "coordinator"]) -> None:
        self._topics = SiteTopics(SITE)
        self.device = device
        self.births_of = births_of
        # What was seen of the whole site; `beside` shares it.
        self._nodes: dict[str, NodeInfo] = {}  # by device
        self._coordinators: dict[str, CoordinatorInfo] = {}
        self._states: dict[str, NodeState] = {}  # by topic
        self._updates: dict[str, NodeUpdate] = {}  # by device
        self._features: dict[tuple[str, int, int], FeatureMessage] = {}  # by device, frame, student
        self._own_images: Counter[str] = Counter()
        self.predictions: dict[int, PredictionMessage] = {}  # the coordinator's answers by frame
        subscriptions = [
            (self._topics.node("+", "info"), 1),
            (self._topics.node("+", "state"), 1),
            (self._topics.coordinator(COORDINATOR, "info"), 1),
            (self._topics.coordinator(COORDINATOR, "state"), 1),
            (self._topics.node("+", "update"), 1),
            (self._topics.features_of(SOURCE), 0),
            (self._topics.features_of(device), 0),
            (self._topics.prediction(SOURCE), 1),
        ]
        self._link = MqttLink(login, f"boot-test-observer-{device}", subscriptions)

    def beside(self, device: str) -> Self:
        """Return a view of another device, over the same connection; its own camera is not watched."""
        other = copy(self)
        other.device, other.births_of = device, "device"
        return other

    @property
    def session(self) -> int:
        """The last start of what births are waited for."""
        info = self._born_info
        return info.session if info else 0

    @property
    def deployment(self) -> str:
        """What the device answers with."""
        info = self._nodes.get(self.device)
        return info.deployment if info else ""

    @property
    def students(self) -> set[int]:
        """Which students the device runs."""
        info = self._nodes.get(self.device)
        return {one.student for one in info.students} if info else set()

    @property
    def update(self) -> NodeUpdate | None:
        """The device's last word on its update."""
        return self._updates.get(self.device)

    @property
    def camera_answers(self) -> int:
        """Features of images that the device's own camera took."""
        return self._own_images[self.device]

    @property
    def is_online(self) -> bool:
        """Whether the device runs an agent, as far as the broker knows."""
        return self.device in self.devices_online

    @property
    def devices_online(self) -> set[str]:
        """Every device that says that it runs an agent."""
        online = [topic for topic, state in self._states.items() if state.state == "online"]
        births = self._topics.coordinator(COORDINATOR, "state")
        return {self._topics.parse_leaf(topic, "node")[0] for topic in online if topic != births}

    def wait_until(self, reached: Callable[[], bool], deadline_s: float) -> bool:
        """Listen until `reached`, or the deadline on the monotonic clock; return whether it was."""
        while time.monotonic() < deadline_s:
            if reached():
                return True
            self._poll()
        return reached()

    def wait_for_birth(self, after_session: int, deadline_s: float) -> Birth | None:
        """Return the first birth of a session younger than `after_session`, or None at the deadline."""

        def born() -> Birth | None:
            state, info = self._states.get(self._born_topic), self._born_info
            if state and info and state.state == "online" and state.session == info.session > after_session:
                return Birth(info.session, info)
            return None

        self.wait_until(lambda: born() is not None, deadline_s)
        return born()

    def send_frame(self, frame_id: int, image: NDArray[np.uint8]) -> None:
        """Publish an image: (height, width, channels), uint8."""
        payload = encode_frame(FrameMessage(frame_id, time.time_ns() // 1000, image))
        self._link.publish(Outgoing(self._topics.frame(SOURCE), payload))

    def wait_for_features(self, frame_id: int, students: int, deadline_s: float) -> dict[int, FeatureMessage]:
        """Return the features of a frame by student: all of `students`, or what came until the deadline."""
        wanted = (self.device, frame_id)

        def found() -> dict[int, FeatureMessage]:
            return {key[2]: message for key, message in self._features.items() if key[:2] == wanted}

        self.wait_until(lambda: len(found()) >= students, deadline_s)
        return found()

    def close(self) -> None:
        """Leave the broker."""
        self._link.close()

    @property
    def _born_info(self) -> NodeInfo | CoordinatorInfo | None:
        return self._nodes.get(self.device) if self.births_of == "device" else self._coordinators.get(COORDINATOR)

    @property
    def _born_topic(self) -> str:
        if self.births_of == "device":
            return self._topics.node(self.device, "state")
        return self._topics.coordinator(COORDINATOR, "state")

    def _poll(self) -> None:
        for event in self._link.poll(POLL_S):
            if isinstance(event, Message) and event.payload:
                self._take(event)

    def _take(self, message: Message) -> None:
        if message.topic == self._topics.coordinator(COORDINATOR, "info"):
            self._coordinators[COORDINATOR] = decode_status(CoordinatorInfo, message.payload)
        elif message.topic.endswith("/state"):
            self._states[message.topic] = decode_status(NodeState, message.payload)
        elif message.topic == self._topics.prediction(SOURCE):
            prediction = decode_prediction(message.payload)
            self.predictions[prediction.frame_id] = prediction
        elif message.topic.endswith("/info"):
            self._nodes[self._node_of(message)] = decode_status(NodeInfo, message.payload)
        elif message.topic.endswith("/update"):
            self._updates[self._node_of(message)] = decode_update(NodeUpdate, message.payload)
        else:
            self._take_features(message)

    def _node_of(self, message: Message) -> str:
        return self._topics.parse_leaf(message.topic, "node")[0]

    def _take_features(self, message: Message) -> None:
        topic = self._topics.parse_feature(message.topic)
        try:
            features = decode_features(message.payload)
        except ProtocolError:
            return  # ranges of another deployment; nothing that this test compares
        if topic.source == topic.device:
            self._own_images[topic.device] += 1
        else:
            self._features[topic.device, features.frame_id, topic.student] = features


def write_card(image: Path, card: Path, settings: str, size_bytes: int = 0, deployment: Path | None = None) -> None:
    """Copy the image onto a card, larger if need be; settings and deployment go where a person would put them."""
    programs.run(["cp", "--sparse=always", "--reflink=auto", image, card])
    with card.open("r+b") as file:
        file.truncate(max(size_bytes, card.stat().st_size))
    text = card.with_suffix(".toml")
    text.write_text(settings)
    boot = image_extents(card)[0]
    write_fat_file(card, boot, text, CARD_FILE)
    if deployment is not None:
        write_fat_file(card, boot, deployment.resolve(), CARD_FOLDER)
