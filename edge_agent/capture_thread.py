"""Reads a frame source beside the agent's loop: a slow camera must not hold up answers."""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.frame_sources import FrameSource, Image
from edge_agent.frame_sources.frame_source import SourceError

RETRY_S = 2.0  # after trouble with the camera: long enough to read the log, short enough for a loose plug
_log = logging.getLogger("camera")


@dataclass(frozen=True, slots=True)
class Captured:
    """An image, when it was taken (microseconds since 1970), and sometimes a JPEG of it for people."""

    image: Image
    captured_at_us: int
    live: bool
    picture: bytes | None


class CaptureThread:
    """Opens the source, reads it at its rate, keeps the newest image until it is taken.

    Images of sources that are not live wait to be taken instead: none is skipped. `ready_fd` is readable while one
    waits.
    """

    def __init__(
        self,
        open_source: Callable[[], FrameSource],
        frames_per_s: float,
        picture_per_s: float,
        picture_width: int,
    ) -> None:
        self._open_source = open_source
        self._interval_s = 1 / frames_per_s
        self._picture_interval_s = 1 / picture_per_s if picture_per_s else None
        self._picture_width = picture_width
        self._next_picture = 0.0
        self._changed = threading.Condition()
        self._waiting: Captured | None = None
        self._closed = False
        self.finished = False  # the last image of a folder or file has been read
        self.skipped = 0
        self.ready_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Open the source and read it until `close`."""
        self._thread.start()

    def take(self) -> Captured | None:
        """The newest image that was not taken yet."""
        with self._changed:
            captured, self._waiting = self._waiting, None
            if captured is not None:
                os.eventfd_read(self.ready_fd)
                self._changed.notify()
        return captured

    def close(self) -> None:
        """Stop reading; the thread ends after the image that it waits for."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while not self._closed:
            try:
                source = self._open_source()
            except SourceError as error:
                self._rest(str(error))
                continue
            try:
                self.finished = self._read_all(source)
            except SourceError as error:
                self._rest(str(error))
            finally:
                source.close()
            if self.finished:
                return

    def _rest(self, reason: str) -> None:
        _log.error("%s; trying again", reason)
        with self._changed:
            self._changed.wait_for(lambda: self._closed, RETRY_S)

    def _read_all(self, source: FrameSource) -> bool:
        """True: that was all; False: closed before."""
        due = time.monotonic()
        while not self._closed:
            image = source.read()
            if image is None:
                return True
            self._offer(Captured(image, time.time_ns() // 1000, source.live, self._picture(source)))
            # A late image moves the rhythm instead of being followed by a burst.
            due = max(due + self._interval_s, time.monotonic() - self._interval_s)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, max(0.0, due - time.monotonic()))
        return False

    def _picture(self, source: FrameSource) -> bytes | None:
        now = time.monotonic()
        if self._picture_interval_s is None or now < self._next_picture:
            return None
        self._next_picture = now + self._picture_interval_s
        return source.picture(self._picture_width)

    def _offer(self, captured: Captured) -> None:
        with self._changed:
            if not captured.live:
                self._changed.wait_for(lambda: self._closed or self._waiting is None)
            if self._waiting is None:
                os.eventfd_write(self.ready_fd, 1)
            else:
                self.skipped += 1
            self._waiting = captured
