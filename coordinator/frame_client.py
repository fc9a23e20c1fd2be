"""Sends images to a site as one source and collects the answers."""

import logging
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.accuracy import FrameLabel
from coordinator.gathering import gather_s
from coordinator.roster import Roster
from coordinator.settings import ClientSettings
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.log import LimitedLog
from edge_agent.protocol import pack
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.link import Disconnected, Event, Message, Outgoing
from edge_agent.protocol.link_choice import open_link
from edge_agent.protocol.prediction_message import PredictionMessage, decode_prediction
from edge_agent.protocol.status import CoordinatorInfo, NodeInfo, NodeState, decode_status
from edge_agent.protocol.topics import SiteTopics

# A window is at least four packs: while one is seen, the next is on its way and the one before is merged. Longer packs
# than this save nothing more, and fewer of them keep two cores busy less well (docs/decisions/0017).
PACKS_OF_A_WINDOW, PACK_FRAMES = 4, 16
# How long after the coordinator's deadline an answer may still come before its frame counts as lost.
GRACE_S = 5.0
# A broker restart takes seconds; without one, every window of frames would be lost one after another, for hours.
BROKER_PATIENCE_S = 20.0
_log = logging.getLogger("client")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and how long its image took from sending to here."""

    index: int
    prediction: PredictionMessage
    round_trip_s: float


class FrameClient:
    """One source of frames. Use `wait_for_site` before `classify`."""

    def __init__(self, settings: ClientSettings, source: str | None = None) -> None:
        self._settings = settings
        self.source = source or f"client-{secrets.token_hex(4)}"
        self._topics = SiteTopics(settings.site)
        self._prediction_topic = self._topics.prediction(self.source)
        self._roster = Roster()
        self._info: CoordinatorInfo | None = None
        self._coordinator_online = False
        self._predictions: list[PredictionMessage] = []
        self._last_trouble = "no answer from the broker"
        self._next_id = time.time_ns() // 1000
        self.wire_bytes: dict[str, list[int]] = {"frame": [], "features": [], "prediction": []}
        self.repeated_answers = 0
        self.labels: Sequence[str] = ()  # the images' true classes, if dashboards shall know them
        self._limited = LimitedLog(_log)
        self._link = open_link(
            settings.broker,
            f"nonn-{self.source}",
            [
                (self._topics.coordinator(settings.coordinator, "info"), 1),
                (self._topics.coordinator(settings.coordinator, "state"), 1),
                (self._topics.node("+", "state"), 1),
                (self._topics.node("+", "info"), 1),
                (self._prediction_topic, 1),
            ],
            coalesce=True,
        )

    def wait_for_site(self, timeout_s: float, all_students: bool = True, spare_absent: bool = False) -> CoordinatorInfo:
        """The coordinator's description once it, and a device for every student, is online; UserError otherwise.

        `spare_absent`: devices known to be offline are not waited for, and in the end one student is enough.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for event in self._link.poll(0.05):
                self._take(event)
            info = self._info if self._coordinator_online else None
            if info and (not all_students or self._is_staffed(info, spare_absent)):
                return info
        info = self._info if self._coordinator_online else None
        if info and spare_absent and len(self._roster.missing(info.deployment, info.students)) < info.students:
            return info
        raise UserError(self._why_not_ready(timeout_s), ExitCode.UNAVAILABLE)

    def _is_staffed(self, info: CoordinatorInfo, spare_absent: bool) -> bool:
        missing = set(self._roster.missing(info.deployment, info.students))
        absent = self._roster.absent(info.deployment, info.students) if spare_absent else frozenset()
        return missing <= absent and len(missing) < info.students

    def measure_features(self) -> None:
        """Count the bytes of the features of this source's frames from now on."""
        self._link.subscribe(self._topics.features_of(self.source), 0)

    def classify(
        self, images: Iterable[NDArray[np.uint8]], window: int, frames_per_s: float | None = None
    ) -> Iterator[Answer]:
        """Send every image, at most `window` unanswered at a time, and yield the answers as they come.

        Images that get no answer are not yielded; the caller counts.
        """
        info = self._info
        patience_s = GRACE_S + (info.deadline_ms / 1000 if info else 0.0)
        waiting: dict[int, tuple[int, float]] = {}
        pending = enumerate(images)
        exhausted = False
        together = min(PACK_FRAMES, max(1, window // PACKS_OF_A_WINDOW))
        next_send = last_seen = time.monotonic()
        round_trip_s = 0.0  # of the last answer
        while waiting or not exhausted:
            now = time.monotonic()
            due: list[bytes] = []
            while not exhausted and len(waiting) < window and now >= next_send:
                item = next(pending, None)
                if item is None:
                    exhausted = True
                    break
                frame_id, payload = self._frame(*item)
                due.append(payload)
                waiting[frame_id] = (item[0], time.monotonic())
                next_send = max(next_send + 1 / frames_per_s, now - 1.0) if frames_per_s else now
            self._send(due, together)
            wait_s = min(0.05, max(0.0, next_send - now)) if len(waiting) < window else 0.05
            pause_s = 0.0 if self._packs else gather_s(len(waiting), round_trip_s)
            for event in self._link.poll(wait_s, min(wait_s, pause_s)):
                self._take(event)
            for answer in self._answers(waiting):
                round_trip_s = answer.round_trip_s
                yield answer
            self._give_up(waiting, patience_s)
            last_seen = time.monotonic() if self._link.connected else last_seen
            if time.monotonic() - last_seen > max(patience_s, BROKER_PATIENCE_S):
                raise UserError(f"broker lost: {self._last_trouble}", ExitCode.UNAVAILABLE)

    def close(self) -> None:
        """Leave the broker."""
        self._link.close()

    def _frame(self, index: int, image: NDArray[np.uint8]) -> tuple[int, bytes]:
        frame_id, self._next_id = self._next_id, self._next_id + 1
        if self.labels:
            label = FrameLabel(frame_id=frame_id, class_name=self.labels[index])
            self._link.publish(Outgoing(f"{self._topics.root}/label/{self.source}", label.encode()))
        payload = encode_frame(FrameMessage(frame_id, time.time_ns() // 1000, image))
        return frame_id, payload

    @property
    def _packs(self) -> bool:
        """Everybody who reads our frames or answers them reads packs."""
        info = self._info
        return info is not None and (info.packs or 0) >= pack.VERSION and self._roster.reads_packs(pack.VERSION)

    def _send(self, frames: list[bytes], together: int) -> None:
        """Publish frames: in packs of at most `together` if everybody reads packs."""
        if not frames:
            return
        self.wire_bytes["frame"] += map(len, frames)
        if self._packs:
            payloads = [one for i in range(0, len(frames), together) for one in pack.packed(frames[i : i + together])]
        else:
            payloads = frames
        for payload in payloads:
            self._link.publish(Outgoing(self._topics.frame(self.source), payload, expiry_s=2))

    def _answers(self, waiting: dict[int, tuple[int, float]]) -> Iterator[Answer]:
        predictions, self._predictions = self._predictions, []
        for prediction in predictions:
            sent = waiting.pop(prediction.frame_id, None)
            if sent is None:
                self.repeated_answers += 1
            else:
                yield Answer(sent[0], prediction, time.monotonic() - sent[1])

    def _give_up(self, waiting: dict[int, tuple[int, float]], patience_s: float) -> None:
        sent_before = time.monotonic() - patience_s
        while waiting and next(iter(waiting.values()))[1] < sent_before:  # in the order of sending
            del waiting[next(iter(waiting))]

    def _take(self, event: Event) -> None:
        if isinstance(event, Message):
            try:
                self._receive(event)
            except ProtocolError as error:
                self._limited.warn(event.topic, f"refused message on {event.topic[:120]}: {error}")
        elif isinstance(event, Disconnected):
            self._last_trouble = event.reason
            if event.refused:
                raise UserError(f"broker {event.reason}", ExitCode.UNAVAILABLE)

    def _receive(self, message: Message) -> None:
        if message.topic == self._prediction_topic:
            for payload in pack.decode_pack(message.payload):
                self.wire_bytes["prediction"].append(len(payload))
                self._predictions.append(decode_prediction(payload))
            return
        levels = self._topics.relative(message.topic)
        match levels:
            case ["coordinator", _, "info"] if message.payload:
                self._info = decode_status(CoordinatorInfo, message.payload)
            case ["coordinator", _, "state"] if message.payload:
                self._coordinator_online = decode_status(NodeState, message.payload).state == "online"
            case ["node", device, "state"] if message.payload:
                self._roster.state(device, decode_status(NodeState, message.payload))
            case ["node", device, "info"] if message.payload:
                self._roster.info(device, decode_status(NodeInfo, message.payload))
            case ["feature", *_]:
                self.wire_bytes["features"] += map(len, pack.decode_pack(message.payload))
            case _:
                pass

    def _why_not_ready(self, timeout_s: float) -> str:
        broker = f"{self._settings.broker.host}:{self._settings.broker.port}"
        waited = f"after {timeout_s:g} s"
        if not self._link.connected:
            trouble = self._last_trouble.removeprefix(f"{broker}: ")
            return f"no broker at {broker} {waited}: {trouble}; expected an MQTT broker there, such as mosquitto"
        name = f"coordinator {self._settings.coordinator!r} of site {self._settings.site!r}"
        if self._info is None or not self._coordinator_online:
            return f"{name} is not online at {broker} {waited}; expected a running nonn-coordinator"
        missing = self._roster.missing(self._info.deployment, self._info.students)
        which = f"student{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
        without = ", or give --allow-missing" if len(missing) < self._info.students else ""
        return (
            f"no online device runs {which} of deployment {self._info.deployment} {waited}; start an agent with "
            f"--students {','.join(map(str, missing))}{without}"
        )
