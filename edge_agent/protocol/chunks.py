"""Artifacts travel in chunks: layout, and what is still wanted of a file. Pure; docs/updates.md, section "Chunks"."""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from edge_agent.protocol.errors import DecodeError, UnsupportedVersionError

VERSION = 1
# 0.5 % of overhead, and at 1 MB/s a chunk keeps a link busy for 32 ms: half of a frame time at 15 frames/s.
CHUNK_BYTES = 32 * 1024
# version, 3 zero bytes, crc32 of the content
_HEADER = struct.Struct("<B3sI")
HEADER_BYTES = _HEADER.size
_RESERVED = b"\0\0\0"
MAX_WINDOW = 16  # chunks asked for and not there yet; half of what mosquitto keeps in flight by default
MAX_FILE_BYTES = 256 * 1024 * 1024  # no student for a Pi is larger; bounds the bit map
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 15.0


def chunk_count(size_bytes: int) -> int:
    """Chunks of a file.

    >>> chunk_count(1), chunk_count(32768), chunk_count(32769)
    (1, 1, 2)
    """
    return -(-size_bytes // CHUNK_BYTES)


def chunk_length(size_bytes: int, number: int) -> int:
    """Content bytes of chunk `number`; the last one is shorter."""
    return min(CHUNK_BYTES, size_bytes - number * CHUNK_BYTES)


def encode_chunk(content: bytes) -> bytes:
    """Bytes of a chunk."""
    return _HEADER.pack(VERSION, _RESERVED, zlib.crc32(content)) + content


def decode_chunk(payload: bytes) -> bytes:
    """Content of a chunk; DecodeError for damaged ones. The file's sha256 is what finally counts."""
    if not payload:
        raise DecodeError("chunk: empty message")
    if payload[0] != VERSION:
        raise UnsupportedVersionError(f"chunk: version {payload[0]}, this program speaks {VERSION}")
    if not HEADER_BYTES < len(payload) <= HEADER_BYTES + CHUNK_BYTES:
        raise DecodeError(f"chunk: {len(payload)} bytes, expected {HEADER_BYTES + 1} to {HEADER_BYTES + CHUNK_BYTES}")
    _, reserved, checksum = _HEADER.unpack_from(payload)
    content = payload[HEADER_BYTES:]
    if reserved != _RESERVED or zlib.crc32(content) != checksum:
        raise DecodeError("chunk: damaged: its crc32 does not fit")
    return content


class ChunkMap:
    """Which chunks of one file are there: a bit each, chunk 0 in the lowest bit of the first byte."""

    def __init__(self, size_bytes: int, bits: bytes = b"") -> None:
        if not 0 < size_bytes <= MAX_FILE_BYTES:
            raise DecodeError(f"a file of {size_bytes} bytes; expected 1 to {MAX_FILE_BYTES}")
        self.size_bytes = size_bytes
        self.count = chunk_count(size_bytes)
        # A map of another length was written for another file or not to its end: start again.
        self._bits = bytearray(bits) if len(bits) == (self.count + 7) // 8 else bytearray((self.count + 7) // 8)

    def __contains__(self, number: int) -> bool:
        return bool(self._bits[number // 8] >> number % 8 & 1)

    def add(self, number: int) -> None:
        """Chunk `number` is there."""
        self._bits[number // 8] |= 1 << number % 8

    def missing(self) -> list[int]:
        """Chunks that are not there, ascending."""
        return [number for number in range(self.count) if number not in self]

    def to_bytes(self) -> bytes:
        """The bits, to be kept beside the partial file."""
        return bytes(self._bits)


@dataclass(slots=True)
class _Asked:
    at_s: float
    times: int


class ChunkWishes:
    """What to ask for next, of one file: a sliding window, asked again when an answer stays away."""

    def __init__(self, chunks: ChunkMap, window: int = MAX_WINDOW) -> None:
        self.chunks = chunks
        self._window = window
        self._missing = dict.fromkeys(chunks.missing())
        self._asked: dict[int, _Asked] = {}
        self.repeated = 0

    @property
    def complete(self) -> bool:
        """Every chunk came."""
        return not self._missing

    @property
    def received(self) -> int:
        """Chunks that came."""
        return self.chunks.count - len(self._missing)

    def ask(self, now: float) -> list[int]:
        """Chunks to request now, `now` in seconds; at most a window is under way."""
        due = [n for n, asked in self._asked.items() if now - asked.at_s >= _patience_s(asked.times)]
        free = self._window - len(self._asked)
        new: list[int] = []
        if free > self._window // 2:  # one request for several chunks, not one for each
            new = _first(free, (n for n in self._missing if n not in self._asked))
        for number in due:
            self._asked[number] = _Asked(now, self._asked[number].times + 1)
        self._asked |= {number: _Asked(now, 1) for number in new}
        return due + new

    def accept(self, number: int, content: bytes) -> bool:
        """Whether chunk `number` is wanted: of this file, of the right length, not here yet."""
        if not 0 <= number < self.chunks.count or len(content) != chunk_length(self.chunks.size_bytes, number):
            raise DecodeError(f"chunk {number} of {len(content)} bytes is none of a file of {self.chunks.size_bytes}")
        self._asked.pop(number, None)
        if number not in self._missing:
            self.repeated += 1
            return False
        del self._missing[number]
        return True


def _patience_s(times: int) -> float:
    return min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(times - 1, 10))


def _first(count: int, numbers: Iterable[int]) -> list[int]:
    return [number for number, _ in zip(numbers, range(count), strict=False)]
