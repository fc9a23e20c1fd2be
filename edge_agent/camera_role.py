"""The camera role: publishes the images of this device's camera as frames of one source."""

import logging
import time
from collections.abc import Callable, Sequence

from edge_agent.capture_thread import Captured, CaptureThread
from edge_agent.frame_sources import Shape, open_source
from edge_agent.node_status import FrameCounts
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.link import Extension, Message, Outgoing
from edge_agent.protocol.status import CoordinatorInfo, decode_status
from edge_agent.protocol.topics import SiteTopics
from edge_agent.settings import CameraSettings

FRAME_EXPIRY_S = 2  # an image older than this is not what the camera sees
_log = logging.getLogger("camera")


class CameraRole(Extension):
    """Without a deployment of its own, it learns the size of the images from the coordinator's retained info."""

    def __init__(
        self,
        settings: CameraSettings,
        topics: SiteTopics,
        publish: Callable[[Outgoing], bool],
        counts: FrameCounts,
        shape: Shape | None,
        watch: Callable[[int], None] = lambda _descriptor: None,
    ) -> None:
        self._settings = settings
        self._source = settings.source or ""
        self._topics = topics
        self._publish = publish
        self._counts = counts
        self._shape = shape
        self._watch = watch
        self._capture: CaptureThread | None = None
        self._last_id = 0
        if shape is not None:
            self._start(shape)

    def subscriptions(self) -> Sequence[tuple[str, int]]:
        """Coordinators tell the image size that their deployment takes."""
        return [] if self._shape is not None else [(self._topics.coordinator("+", "info"), 1)]

    def receive(self, message: Message) -> bool:
        """Start the camera with the size that the first coordinator asks for."""
        if not message.topic.startswith(self._topics.coordinator("", "").rstrip("/") + "/"):
            return False
        if message.payload and self._shape is None:
            info = decode_status(CoordinatorInfo, message.payload)
            self._shape = (info.height, info.width, info.channels)
            self._start(self._shape)
        return True

    def tick(self, now: float) -> None:  # noqa: ARG002 (the source's own clock sets the pace)
        """Publish the newest image."""
        captured = self._capture.take() if self._capture is not None else None
        if captured is not None:
            self._send(captured)

    def close(self) -> None:
        """Stop reading the camera."""
        if self._capture is not None:
            self._capture.close()

    def _start(self, shape: Shape) -> None:
        settings = self._settings
        _log.info("source %s: %s %s as %d x %d x %d", self._source, settings.kind, settings.location, *shape)
        self._capture = CaptureThread(
            lambda: open_source(settings, shape), settings.frames_per_s, settings.picture_per_s, settings.picture_width
        )
        self._watch(self._capture.ready_fd)
        self._capture.start()

    def _send(self, captured: Captured) -> None:
        # Frame ids grow even if the clock is set back meanwhile; across restarts the clock makes them grow.
        self._last_id = max(self._last_id + 1, time.time_ns() // 1000)
        frame = FrameMessage(self._last_id, captured.captured_at_us, captured.image, captured.live)
        if self._publish(Outgoing(self._topics.frame(self._source), encode_frame(frame), expiry_s=FRAME_EXPIRY_S)):
            self._counts.captured += 1
        if captured.picture is not None:
            self._publish(Outgoing(self._topics.picture(self._source), captured.picture, expiry_s=FRAME_EXPIRY_S))
