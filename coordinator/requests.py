"""request/classify: callers that want an answer to their image, as PNG or JPEG."""

import base64
import binascii
import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from coordinator.extension import CoordinatorExtension
from coordinator.feature_merger import FrameMerged
from coordinator.labelled_images import decode_image
from coordinator.steering import respond
from edge_agent.console.exit_codes import UserError
from edge_agent.console.worker import Worker
from edge_agent.protocol.fleet_messages import ClassifyRequest, Response
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.json_message import MAX_JSON_BYTES, decode_json
from edge_agent.protocol.link import Message, Outgoing
from edge_agent.protocol.prediction_message import PredictionMessage
from edge_agent.protocol.topics import SiteTopics

MAX_PENDING = 64  # requests being decoded or answered; more are told to come back
MAX_REQUEST_BYTES = 8 * MAX_JSON_BYTES  # 2 MiB: a 1.5 MB picture, what mosquitto 2.1 takes by default
FRAME_EXPIRY_S = 2
_log = logging.getLogger("requests")
Shape = tuple[int, int, int]


class ClassifyRequests(CoordinatorExtension):
    """Decodes in a thread, publishes the image as a frame of its own source, answers when that is answered."""

    def __init__(
        self,
        source: str,
        topics: SiteTopics,
        shape: Shape,
        publish: Callable[[Outgoing], bool],
        open_frame: Callable[[str, FrameMessage], None],
        first_frame_id: int,
        worker: Worker,
    ) -> None:
        self._source = source
        self._topics = topics
        self._shape = shape
        self._publish = publish
        self._open_frame = open_frame
        self._next_id = first_frame_id
        self._worker = worker
        self._asked: dict[int, tuple[Message, str]] = {}

    def subscriptions(self) -> Sequence[tuple[str, int]]:
        """Requests, and the features of the own source."""
        return [(self._topics.request("classify"), 1), (self._topics.features_of(self._source), 0)]

    def receive(self, message: Message) -> bool:
        """Begin with a request; retained ones are leftovers."""
        if message.topic != self._topics.request("classify"):
            return False
        if message.retain:
            return True
        transaction, content = _take_apart(message)
        if self._worker.pending + len(self._asked) >= MAX_PENDING:
            self._refuse(message, transaction, f"busy: {MAX_PENDING} requests are waiting; ask again later")
            return True
        self._worker.submit(
            lambda: decode_image(content, self._shape, "image"),
            lambda result: self._decoded(message, transaction, result),
        )
        return True

    def tick(self, now: float) -> None:  # noqa: ARG002 (the worker has its own pace)
        """Go on with what was decoded."""
        self._worker.deliver()

    def on_prediction(self, prediction: PredictionMessage, merged: FrameMerged | None, now: float) -> None:  # noqa: ARG002
        """The frame of a request has its answer."""
        if prediction.source != self._source:
            return
        asked = self._asked.pop(prediction.frame_id, None)
        if asked is not None:
            message, transaction = asked
            answer = Response(status="ok", transaction=transaction, data=prediction.model_dump(mode="json"))
            self._publish(respond(self._topics, "classify", message, answer))

    def _decoded(self, message: Message, transaction: str, image: NDArray[np.uint8] | Exception) -> None:
        if isinstance(image, UserError):
            self._refuse(message, transaction, str(image))
            return
        if isinstance(image, Exception):
            raise image
        frame_id, self._next_id = self._next_id, self._next_id + 1
        frame = FrameMessage(frame_id, frame_id, image)
        sent = Outgoing(self._topics.frame(self._source), encode_frame(frame), expiry_s=FRAME_EXPIRY_S)
        if not self._publish(sent):
            self._refuse(message, transaction, "the coordinator's link to the broker is busy; ask again")
            return
        self._asked[frame_id] = (message, transaction)
        self._open_frame(self._source, frame)

    def _refuse(self, message: Message, transaction: str, error: str) -> None:
        answer = Response(status="error", transaction=transaction, error=error)
        self._publish(respond(self._topics, "classify", message, answer))


def _take_apart(message: Message) -> tuple[str, bytes]:
    """Transaction and image file of a request: JSON with base64, or (MQTT 5) the bare file."""
    if message.payload.lstrip()[:1] != b"{":
        return "", message.payload
    # The image may be longer than other JSON of the protocol: decode it from its own, wider limit.
    request = decode_json(ClassifyRequest, message.payload, MAX_REQUEST_BYTES)
    try:
        return request.transaction, base64.b64decode(request.image, validate=True)
    except (binascii.Error, ValueError):
        return request.transaction, b""  # decoding the image then says what is wrong, to the caller
