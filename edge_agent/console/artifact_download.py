"""Fetches the files of one deployment, chunk by chunk, into a store: resumable, and never in the way of the loop."""

import logging
from collections.abc import Callable, Sequence

from edge_agent.console.deployment_store import DeploymentStore
from edge_agent.console.worker import Worker
from edge_agent.protocol.chunks import MAX_WINDOW, ChunkMap, ChunkWishes, decode_chunk
from edge_agent.protocol.errors import DecodeError, ManifestError
from edge_agent.protocol.link import Link, Outgoing
from edge_agent.protocol.manifest import FileEntry
from edge_agent.protocol.update_messages import ChunkRequest
from edge_agent.protocol.update_topics import UpdateTopics

SAVE_EVERY = 8  # chunks between two writes of the map: a power cut costs at most 256 KB of downloading again
MAX_ATTEMPTS = 3  # a file that arrives whole with a wrong hash so often is not the one that was signed
_log = logging.getLogger("download")


class ArtifactDownload:
    """Call `tick` often and `receive` for chunks; `finished` gets None, or the exception that ended it."""

    def __init__(
        self,
        store: DeploymentStore,
        worker: Worker,
        link: Link,
        topics: UpdateTopics,
        me: str,
        finished: Callable[[Exception | None], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._link = link
        self._topics = topics
        self._me = me
        self._finished = finished
        self._server = self._deployment = ""
        self._todo: list[tuple[FileEntry, ChunkMap]] = []
        self._wishes: ChunkWishes | None = None
        self._attempts = 0
        self._total_bytes = self._done_bytes = 0
        self.running = False
        self.damaged = 0  # chunks that were refused

    @property
    def progress(self) -> float:
        """Share of the bytes that have come."""
        if not self._total_bytes:
            return 1.0
        current = 0.0
        if self._wishes is not None and self._todo:
            current = self._todo[0][0].size_bytes * self._wishes.received / self._wishes.chunks.count
        return min(1.0, (self._done_bytes + current) / self._total_bytes)

    def start(self, server: str, deployment: str, entries: Sequence[FileEntry]) -> None:
        """Fetch what is missing of `entries`; the store has a place for them already."""
        self._server, self._deployment = server, deployment
        self.running, self._attempts = True, 0
        self._todo = self._store.missing(deployment, entries)
        self._total_bytes = sum(entry.size_bytes for entry in entries)
        self._done_bytes = self._total_bytes - sum(entry.size_bytes for entry, _ in self._todo)
        self._next_file()

    def stop(self) -> None:
        """Forget it; what has come stays on the disk for another time."""
        if self.running:
            self.running = False
            self._leave_file()

    def receive(self, topic: str, payload: bytes) -> None:
        """Take a chunk; DecodeError for damaged ones, which are asked for again."""
        sha256, number = self._topics.parse_chunk(topic)
        if not self.running or self._wishes is None or sha256 != self._todo[0][0].sha256:
            return  # meant for another device, or late
        try:
            content = decode_chunk(payload)
            wanted = self._wishes.accept(number, content)
        except DecodeError:
            self.damaged += 1
            raise
        if wanted:
            self._keep(number, content)

    def tick(self, now: float) -> None:
        """Ask for more, unless the disk is behind."""
        if not self.running or self._wishes is None or self._worker.pending > MAX_WINDOW:
            return
        numbers = self._wishes.ask(now)
        for start in range(0, len(numbers), MAX_WINDOW):
            request = ChunkRequest(
                device=self._me, sha256=self._todo[0][0].sha256, chunks=tuple(numbers[start : start + MAX_WINDOW])
            )
            self._link.publish(Outgoing(self._topics.chunk_requests(self._server), request.encode(), qos=0))

    def _next_file(self) -> None:
        if not self._todo:
            self._end(None)
            return
        entry, chunks = self._todo[0]
        self._wishes = ChunkWishes(chunks)
        self._link.subscribe(self._topics.chunks_of(entry.sha256), 1)
        if self._wishes.complete:  # all of it came before the power went
            self._finish_file(entry)

    def _keep(self, number: int, content: bytes) -> None:
        entry, wishes, deployment = self._todo[0][0], self._wishes, self._deployment
        if wishes is None:
            return
        save = wishes.complete or wishes.received % SAVE_EVERY == 0

        def write() -> None:
            self._store.write_chunk(deployment, entry, number, content)
            wishes.chunks.add(number)  # only now: the map must not promise what is not written
            if save:
                self._store.save_map(deployment, entry, wishes.chunks)

        self._worker.submit(write, self._written)
        if wishes.complete:
            self._finish_file(entry)

    def _written(self, result: Exception | None) -> None:
        if result is not None and self.running:
            self._end(result)

    def _finish_file(self, entry: FileEntry) -> None:
        deployment = self._deployment
        self._worker.submit(lambda: self._store.finish_file(deployment, entry), self._file_finished)

    def _file_finished(self, result: Exception | None) -> None:
        if not self.running or self._wishes is None or not self._wishes.complete:
            return
        entry = self._todo[0][0]
        if isinstance(result, ManifestError) and self._attempts + 1 < MAX_ATTEMPTS:
            self._attempts += 1
            _log.warning("%s; fetching it again", result)
            self._leave_file()
            self._todo[0] = (entry, ChunkMap(entry.size_bytes))
            self._next_file()
        elif result is not None:
            self._end(result)
        else:
            self._leave_file()
            self._done_bytes += entry.size_bytes
            self._todo.pop(0)
            self._attempts = 0
            self._next_file()

    def _leave_file(self) -> None:
        if self._todo:
            self._link.unsubscribe(self._topics.chunks_of(self._todo[0][0].sha256))
        self._wishes = None

    def _end(self, error: Exception | None) -> None:
        if error is not None:
            self._leave_file()
        self.running = False
        self._finished(error)
