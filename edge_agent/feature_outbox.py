"""What the students have found and nobody has been told yet: coded and sent together."""

from collections.abc import Callable

from edge_agent.inference import Features, feature_message
from edge_agent.mailbox import WaitingFrame
from edge_agent.protocol.feature_message import encode_features
from edge_agent.protocol.link import Link, Outgoing
from edge_agent.protocol.pack import packed
from edge_agent.protocol.topics import SiteTopics
from edge_agent.protocol.value import value
from edge_agent.student_slot import StudentSlot

FEATURE_EXPIRY_S = 2  # features later than this help nobody: no coordinator waits so long


@value
class Finished:
    """One run of a student. features: (width,), int8 or float32, as the interpreter gave them."""

    waiting: WaitingFrame
    deployment: str
    slot: StudentSlot
    features: Features
    student_us: int


class FeatureOutbox:
    """Keeps runs until `send`. Between two runs all other work is slow: the student has taken the CPU's caches."""

    def __init__(self, topics: SiteTopics, device: str, link: Link, clock: Callable[[], float]) -> None:
        self._topics = topics
        self._device = device
        self._link = link
        self._clock = clock
        self._finished: list[Finished] = []

    def add(self, finished: Finished) -> None:
        """A student has run."""
        self._finished.append(finished)

    def send(self) -> None:
        """Publish everything, in one piece; in packs what came in packs."""
        if not self._finished:
            return
        finished, self._finished = self._finished, []
        packs: dict[str, list[bytes]] = {}
        for one in finished:
            topic, payload = self._message(one)
            if one.waiting.packed:
                packs.setdefault(topic, []).append(payload)
            else:
                self._link.publish(Outgoing(topic, payload, expiry_s=FEATURE_EXPIRY_S))
        for topic, payloads in packs.items():
            for payload in packed(payloads):
                self._link.publish(Outgoing(topic, payload, expiry_s=FEATURE_EXPIRY_S))
        self._link.flush()

    def _message(self, one: Finished) -> tuple[str, bytes]:
        waiting, slot = one.waiting, one.slot
        agent_us = max(one.student_us, int((self._clock() - waiting.arrived_s) * 1e6))
        message = feature_message(
            waiting.frame.frame_id,
            one.features,
            slot.runtime.quantization,
            slot.student.codec,
            one.student_us,
            agent_us,
        )
        topic = self._topics.feature(waiting.source, one.deployment, slot.student.index, self._device)
        return topic, encode_features(message)
