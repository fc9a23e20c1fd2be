"""How the real programs come round on the fleet's clock, with an interpreter whose answers anybody can compute."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from simulated_broker import SimLink

from coordinator.app import CoordinatorApp
from coordinator.extension import CoordinatorExtension
from edge_agent.app import AgentApp
from edge_agent.protocol.frame_message import FrameMessage

if TYPE_CHECKING:
    from simulator import Fleet

QUANTIZATION = (0.01, -128)


def features_of(image: NDArray[np.uint8], student: int, width: int) -> NDArray[np.int8]:
    """What `student` answers to an image: (width,), int8; different for nearly all images."""
    digest = hashlib.sha256(bytes([student]) + image.tobytes()).digest()
    return np.frombuffer(digest, np.int8)[:width]


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
