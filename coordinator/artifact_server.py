"""Sends chunks of artifacts to devices that ask for them, no faster than leaves the link to live frames."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from coordinator.extension import CoordinatorExtension
from edge_agent.protocol.chunks import CHUNK_BYTES, chunk_count, chunk_length, encode_chunk
from edge_agent.protocol.link import Link, Message, Outgoing
from edge_agent.protocol.update_messages import ChunkRequest, decode_update
from edge_agent.protocol.update_topics import UpdateTopics

MAX_QUEUED = 4096  # chunks asked for; more than a hundred devices ask for at once
LONGEST_STEP_S = 0.25  # an idle loop comes by so often: so much of the rate may go out in one go
DEFAULT_BYTES_PER_S = 1_000_000  # a third of what a Pi 3's Wi-Fi carries


class ArtifactFile(Protocol):
    """A file that may be sent."""

    size_bytes: int

    def read(self, offset: int, length: int) -> bytes:
        """A part of it."""
        ...


class ArtifactServer(CoordinatorExtension):
    """`find` gives the file of a sha256, or None: nothing else is ever sent."""

    def __init__(
        self,
        link: Link,
        topics: UpdateTopics,
        name: str,
        find: Callable[[str], ArtifactFile | None],
        bytes_per_s: float = DEFAULT_BYTES_PER_S,
    ) -> None:
        self._link = link
        self._topics = topics
        self._request_topic = topics.chunk_requests(name)
        self._find = find
        self._bytes_per_s = bytes_per_s
        self._queue: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._budget_bytes = 0.0
        self._last: float | None = None
        self.sent_chunks = self.sent_bytes = self.wire_bytes = 0

    def subscriptions(self) -> list[tuple[str, int]]:
        """Requests to this server."""
        return [(self._request_topic, 0)]

    def receive(self, message: Message) -> bool:
        """Queue what is asked for; a chunk that two devices want is sent once."""
        if message.topic != self._request_topic:
            return False
        if message.retain or not message.payload:
            return True
        request = decode_update(ChunkRequest, message.payload)
        file = self._find(request.sha256)
        if file is None:
            return True  # an older deployment, or none of ours: the device will see what is desired now
        for number in request.chunks:
            if number < chunk_count(file.size_bytes) and len(self._queue) < MAX_QUEUED:
                self._queue[request.sha256, number] = None
        return True

    def tick(self, now: float) -> None:
        """Send as much as the time since the last call allows."""
        passed_s = 0.0 if self._last is None else min(LONGEST_STEP_S, now - self._last)
        self._last = now
        if not self._queue:
            self._budget_bytes = CHUNK_BYTES
            return
        most = max(CHUNK_BYTES, self._bytes_per_s * LONGEST_STEP_S)
        self._budget_bytes = min(most, self._budget_bytes + passed_s * self._bytes_per_s)
        while self._queue and self._budget_bytes >= CHUNK_BYTES:
            (sha256, number), _ = self._queue.popitem(last=False)
            self._send(sha256, number)

    def _send(self, sha256: str, number: int) -> None:
        file = self._find(sha256)
        if file is None or not self._link.connected:
            return
        content = file.read(number * CHUNK_BYTES, chunk_length(file.size_bytes, number))
        topic, payload = self._topics.chunk(sha256, number), encode_chunk(content)
        self._budget_bytes -= len(payload)
        self._link.publish(Outgoing(topic, payload, qos=1))
        self.sent_chunks += 1
        self.sent_bytes += len(content)
        self.wire_bytes += len(payload) + len(topic)
