"""The last answers in a piece of mapped memory: what a program was about to say when it was killed is not forgotten.

Two halves are filled in turn, so that at least half of it is always readable. Pure but for the memory that it is given.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_RECORD = struct.Struct("<IB")  # length of the answer (0: the half ends here), whether it is with the link
_WRITTEN, _SENT = 1, 2


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """An answer of the last session. `sent`: the link had it; else nobody knows."""

    payload: bytes
    sent: bool


class AnswerLog:
    """Append before an answer is published; `mark_sent` once a round of the loop."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._half = len(memory) // 2
        self._start = self._end = 0
        self._turns = 0  # how often the halves have changed
        self._unsent: list[tuple[int, int]] = []  # (turn, position) of what was written in this round
        self._leaving: list[tuple[int, int]] = []  # and in the one before

    def append(self, payload: bytes, sent: bool = False) -> None:
        """Note an answer; one that is longer than half of the memory is not noted."""
        needed = _RECORD.size + len(payload)
        if needed + _RECORD.size > self._half:
            return
        if self._end + needed + _RECORD.size > self._start + self._half:
            self._start = self._end = self._half - self._start
            self._turns += 1
            self._end_here(self._end)
        self._end_here(self._end + needed)
        self._memory[self._end + _RECORD.size : self._end + needed] = payload
        # Last of all, its length: a program that is killed on the way leaves no half answer behind.
        _RECORD.pack_into(self._memory, self._end, len(payload), _SENT if sent else _WRITTEN)
        if not sent:
            self._unsent.append((self._turns, self._end))
        self._end += needed

    def mark_sent(self) -> None:
        """A round of the loop ends: what the round before has written left with the last look at the network."""
        for turn, position in self._leaving:
            if turn >= self._turns - 1:  # else its half has been used again
                self._memory[position + _RECORD.size - 1] = _SENT
        self._leaving, self._unsent = self._unsent, []

    def clear(self) -> None:
        """Forget everything."""
        self._memory[:] = bytes(len(self._memory))
        self._start = self._end = 0
        self._unsent, self._leaving = [], []

    def read(self) -> list[LoggedAnswer]:
        """All that can be read, one half after the other."""
        return [answer for start in (0, self._half) for answer in self._read_half(start)]

    def _read_half(self, start: int) -> Iterator[LoggedAnswer]:
        position, end = start, start + self._half
        while position + _RECORD.size <= end:
            length, state = _RECORD.unpack_from(self._memory, position)
            position += _RECORD.size
            if not 0 < length <= end - position or state not in (_WRITTEN, _SENT):
                return
            yield LoggedAnswer(bytes(self._memory[position : position + length]), state == _SENT)
            position += length

    def _end_here(self, position: int) -> None:
        _RECORD.pack_into(self._memory, position, 0, 0)
