"""Frames in flight and the last answers, in a small file that outlives the program.

A killed coordinator answers when it is back what it left open, and gives the same answer as before to a frame that is
sent again. A file mapped into memory costs a copy of a few hundred bytes a frame. It survives any end of the program;
after a power cut it may be stale or torn, and a torn entry is one that does not parse.
"""

import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

from coordinator.answer_log import AnswerLog
from coordinator.extension import CoordinatorExtension
from coordinator.feature_merger import FrameKey, FrameMerged
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.errors import DecodeError, ProtocolError
from edge_agent.protocol.frame_message import MAX_FRAME_ID, FrameMessage
from edge_agent.protocol.prediction_message import LatencySplit, PredictionMessage, decode_prediction
from edge_agent.protocol.topics import check_id

_ENTRY = struct.Struct("<QB63s")  # frame_id, length of the source's name (0: free), the name
LOG_BYTES = 512 * 1024  # two halves of 400 answers among ten classes each: 7 s of 60 frames/s at the least
UNKNOWN = LatencySplit(total=0, student=0, queue=0, transport=0, merge=0)


class FrameJournal(CoordinatorExtension):
    """Notes every frame when it is opened and strikes it out when it is answered.

    `answered` hears of each answer of the last session; its second argument says that it is to be published (again).
    """

    def __init__(
        self, path: Path, capacity: int, coordinator: str, deployment: Callable[[], str],
        answered: Callable[[PredictionMessage, bool], None],
    ) -> None:  # fmt: skip
        self._coordinator = coordinator
        self._deployment = deployment
        self._answered = answered
        self._begun = False  # the answers of the last session are out
        self._places: dict[FrameKey, int] = {}
        self.left_over: list[FrameKey] = []
        entries_bytes = capacity * _ENTRY.size
        self._map = _map_file(path, entries_bytes + LOG_BYTES)
        self._log = AnswerLog(memoryview(self._map)[entries_bytes:])
        self._last_answers = _readable(self._log)
        known = {(answer.source, answer.frame_id) for answer, _ in self._last_answers}
        self.left_over = [key for key in _read_entries(self._map[:entries_bytes]) if key not in known]
        self._map[:entries_bytes] = bytes(entries_bytes)
        self._free = list(range(capacity - 1, -1, -1))
        for key in self.left_over:
            self._note(key)  # until their answers are out

    def connected(self) -> None:
        """Give the answers that nobody may have heard, and answer what the last session left open."""
        for prediction, sent in self._last_answers:
            self._answered(prediction, not sent)
        for source, frame_id in self.left_over:
            prediction = PredictionMessage(
                frame_id=frame_id,
                source=source,
                coordinator=self._coordinator,
                deployment=self._deployment(),
                result="abandoned",
                reason="restart",
                latency_ms=UNKNOWN,
            )
            self.before_answer(prediction.encode())
            self._answered(prediction, True)
            self._strike((source, frame_id))
        self._last_answers, self.left_over = [], []
        self._begun = True

    def before_answer(self, payload: bytes) -> None:
        """The one answer of a frame is about to be published: should the program die now, it is not a second one."""
        self._log.append(payload)

    def on_frame(self, source: str, frame: FrameMessage, now: float) -> None:  # noqa: ARG002
        """Note a frame."""
        self._note((source, frame.frame_id))

    def on_prediction(self, prediction: PredictionMessage, merged: FrameMerged | None, now: float) -> None:  # noqa: ARG002
        """Strike a frame out."""
        self._strike((prediction.source, prediction.frame_id))

    def tick(self, now: float) -> None:  # noqa: ARG002
        """What was published in the round before is on its way by now."""
        if self._begun:
            self._log.mark_sent()

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


def _map_file(path: Path, size: int) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # disk full: now, and not in the middle of a frame
            os.ftruncate(descriptor, size)
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"journal {path}: {error.strerror}; expected a file on a disk", ExitCode.IO_ERROR) from None


def _readable(log: AnswerLog) -> list[tuple[PredictionMessage, bool]]:
    """Answers of the last session, and whether they were sent; the log goes on with them."""
    answers = []
    for logged in log.read():
        try:
            answers.append((decode_prediction(logged.payload), logged.sent))
        except ProtocolError:
            continue
    log.clear()
    for prediction, sent in sorted(answers, key=lambda answer: not answer[1]):  # what was not sent is kept the longest
        log.append(prediction.encode(), sent)
    return answers


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
