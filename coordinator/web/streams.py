"""Server-sent events for many open pages: one text for all, newest wins, nobody is waited for."""

import asyncio

from starlette.types import Receive, Scope, Send

MAX_STREAMS = 128
SEND_TIMEOUT_S = 15.0  # a page that has not read a few KB for so long is gone or asleep; it reconnects by itself
KEEP_ALIVE_S = 15.0  # proxies cut silent connections after 30 or 60 s
# 100 pages at 10 updates/s would take a third of a core in Python: with many pages each gets fewer.
SEND_COST_S = 0.002
SHORTEST_PAUSE_S = 0.1
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Broadcast:
    """The latest update, and everybody who waits for a newer one. Used inside one event loop."""

    def __init__(self) -> None:
        self.open_streams = 0
        self._latest: tuple[int, bytes] = (0, b"")
        self._newer = asyncio.Event()
        self._closed = False

    @property
    def pause_s(self) -> float:
        """Between two updates of one stream."""
        return max(SHORTEST_PAUSE_S, self.open_streams * SEND_COST_S)

    def publish(self, text: str) -> None:
        """Replace the latest update."""
        self._latest = (self._latest[0] + 1, f"data: {text}\n\n".encode())
        self._wake()

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        self._wake()

    async def next_after(self, serial: int) -> tuple[int, bytes]:
        """The latest update once it is newer than `serial`; a comment line after a silence."""
        while self._latest[0] <= serial and not self._closed:
            try:
                await asyncio.wait_for(self._newer.wait(), KEEP_ALIVE_S)
            except TimeoutError:
                return serial, b": alive\n\n"
        return self._latest

    @property
    def is_empty(self) -> bool:
        """Nothing was published yet."""
        return self._latest[0] == 0

    @property
    def is_closed(self) -> bool:
        """True once the server ends."""
        return self._closed

    def _wake(self) -> None:
        newer, self._newer = self._newer, asyncio.Event()
        newer.set()


class EventStream:
    """An ASGI response that follows a broadcast until the page leaves or stops reading."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI)
        """Send until the page leaves, the server ends, or nobody reads."""
        self._broadcast.open_streams += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            leaving = asyncio.ensure_future(_left(receive))
            sending = asyncio.ensure_future(self._follow(send))
            done, pending = await asyncio.wait({leaving, sending}, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*done, *pending, return_exceptions=True)
        finally:
            self._broadcast.open_streams -= 1

    async def _follow(self, send: Send) -> None:
        serial = 0
        while not self._broadcast.is_closed:
            serial, chunk = await self._broadcast.next_after(serial)
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(self._broadcast.pause_s)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
