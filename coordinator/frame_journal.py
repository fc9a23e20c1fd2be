"""Frames in flight, in a small file that outlives the program: a killed coordinator answers them when it is back.

A file mapped into memory costs a copy of a few bytes a frame. It survives any end of the program; after a power cut
it may be stale or torn, and a torn entry is one that does not parse.
"""

import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

from coordinator.extension import CoordinatorExtension
from coordinator.feature_merger import FrameKey, FrameMerged
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.errors import DecodeError
from edge_agent.protocol.frame_message import MAX_FRAME_ID, FrameMessage
from edge_agent.protocol.prediction_message import LatencySplit, PredictionMessage
from edge_agent.protocol.topics import check_id

_ENTRY = struct.Struct("<QB63s")  # frame_id, length of the source's name (0: free), the name
UNKNOWN = LatencySplit(total=0, student=0, queue=0, transport=0, merge=0)


class FrameJournal(CoordinatorExtension):
    """Notes every frame when it is opened and strikes it out when it is answered."""

    def __init__(
        self, path: Path, capacity: int, coordinator: str, deployment: Callable[[], str],
        publish: Callable[[PredictionMessage], None],
    ) -> None:  # fmt: skip
        self._coordinator = coordinator
        self._deployment = deployment
        self._publish = publish
        self._places: dict[FrameKey, int] = {}
        self.left_over: list[FrameKey] = []
        size = capacity * _ENTRY.size
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self.left_over = _read_entries(os.read(descriptor, size))
                os.posix_fallocate(descriptor, 0, size)  # disk full: now, and not in the middle of a frame
                os.ftruncate(descriptor, size)
                self._map = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise UserError(f"journal {path}: {error.strerror}; expected a file on a disk", ExitCode.IO_ERROR) from None
        self._map[:] = bytes(size)
        self._free = list(range(capacity - 1, -1, -1))
        for key in self.left_over:
            self._note(key)  # until their answers are out

    def connected(self) -> None:
        """Answer what the last session left open."""
        for source, frame_id in self.left_over:
            self._publish(
                PredictionMessage(
                    frame_id=frame_id,
                    source=source,
                    coordinator=self._coordinator,
                    deployment=self._deployment(),
                    result="abandoned",
                    reason="restart",
                    latency_ms=UNKNOWN,
                )
            )
            self._strike((source, frame_id))
        self.left_over = []

    def on_frame(self, source: str, frame: FrameMessage, now: float) -> None:  # noqa: ARG002
        """Note a frame."""
        self._note((source, frame.frame_id))

    def on_prediction(self, prediction: PredictionMessage, merged: FrameMerged | None, now: float) -> None:  # noqa: ARG002
        """Strike a frame out."""
        self._strike((prediction.source, prediction.frame_id))

    def _note(self, key: FrameKey) -> None:
        if not self._free:
            return
        place = self._places[key] = self._free.pop()
        name = key[0].encode()
        _ENTRY.pack_into(self._map, place * _ENTRY.size, key[1], len(name), name)

    def _strike(self, key: FrameKey) -> None:
        place = self._places.pop(key, None)
        if place is not None:
            self._map[place * _ENTRY.size + 8] = 0
            self._free.append(place)


def _read_entries(content: bytes) -> list[FrameKey]:
    keys = []
    for start in range(0, len(content) - _ENTRY.size + 1, _ENTRY.size):
        frame_id, length, name = _ENTRY.unpack_from(content, start)
        if not 0 < length <= len(name) or frame_id > MAX_FRAME_ID:
            continue
        try:
            keys.append((check_id(name[:length].decode(), "source"), frame_id))
        except (ValueError, DecodeError):
            continue
    return keys
