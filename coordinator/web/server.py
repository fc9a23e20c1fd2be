"""The web server: a thread of its own with its own event loop; the live loop only hands over snapshots."""

import asyncio
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from coordinator.settings import CoordinatorSettings
from coordinator.web.access import Access, url_host
from coordinator.web.pages import build_app
from coordinator.web.snapshot import ShownDeployment, Snapshot
from coordinator.web.streams import Broadcast
from coordinator.web.uploads import ImageDesk
from coordinator.web.view import PageView
from edge_agent.console.exit_codes import ExitCode, UserError

MAX_CONNECTIONS = 256
# Refusals are held back, so whoever floods keeps his connections: these places remain for other addresses. It is not
# fewer, because behind a proxy all pages come from one address, and 128 of them may stream.
MAX_CONNECTIONS_OF_ONE_ADDRESS = 192
BACKLOG = 128
FIRST_BYTES_S = 10.0  # a connection that has not asked for anything by then only occupies a place
# The live loop waits for the interpreter lock at most this long when a message comes (Python's default: 5 ms).
SWITCH_INTERVAL_S = 0.0005
_log = logging.getLogger("dashboard")


class WebServer:
    """Dashboard, API and /metrics. `metrics`: renders the body of a scrape."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        deployment: Callable[[str], ShownDeployment | None],
        metrics: Callable[[], str],
    ) -> None:
        self._settings, self._deployment, self._metrics = settings, deployment, metrics
        self._socket = _listen(settings.dashboard.host, settings.dashboard.port or 0)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{url_host(settings.dashboard.host)}:{self.port}/"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: uvicorn.Server | None = None
        self._broadcast: Broadcast | None = None
        self._latest: Snapshot | None = None
        self._wake: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)
        self._ready = threading.Event()

    def start(self) -> None:
        """Begin to answer; returns when it does."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        self._thread.start()
        self._ready.wait(5.0)
        _log.info("dashboard at %s", self.url)

    def offer(self, snapshot: Snapshot) -> None:
        """Take over a snapshot; called by the live loop, takes microseconds."""
        self._latest = snapshot
        if self._loop is not None and self._wake is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    def watched(self) -> bool:
        """True while a page is open."""
        return self._broadcast is not None and self._broadcast.open_streams > 0

    def stop(self) -> None:
        """End all connections and the thread."""
        if self._server is not None:
            self._server.should_exit = True
        if self._broadcast is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._broadcast.close)
        self._thread.join(3.0)
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:  # noqa: BLE001 (the fleet answers without its dashboard, too)
            _log.exception("the dashboard ended; answers go on without it")

    async def _serve(self) -> None:
        self._loop, self._wake, self._broadcast = asyncio.get_running_loop(), asyncio.Event(), Broadcast()
        desk = ImageDesk(self._settings, self._image_shape)
        access = Access(self._settings.dashboard, time.monotonic)
        app = build_app(self._settings, access, self._broadcast, desk, self)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=ImpatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        follower = asyncio.create_task(self._follow())
        self._ready.set()
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            follower.cancel()

    async def _follow(self) -> None:
        """Draw each new snapshot once, for everybody."""
        assert self._wake is not None  # noqa: S101 (set by _serve)
        assert self._broadcast is not None  # noqa: S101 (set by _serve)
        view = PageView(self._deployment, self._settings.broker.is_exposed)
        while True:
            await self._wake.wait()
            self._wake.clear()
            snapshot = self._latest
            if snapshot is None:
                continue
            view.remember(snapshot)
            if self._broadcast.open_streams or self._broadcast.is_empty:
                self._broadcast.publish(json.dumps(view.render(snapshot), separators=(",", ":"), ensure_ascii=False))

    def _image_shape(self) -> tuple[int, int, int]:
        shown = self.shown_deployment()
        if shown is None:
            raise UserError("no deployment yet")
        entry = shown.manifest.input
        return entry.height, entry.width, entry.channels

    def shown_deployment(self) -> ShownDeployment | None:
        """The deployment of the latest answers."""
        return self._deployment(self._latest.deployment) if self._latest else None

    def is_live(self) -> bool:
        """The live loop turns and has its broker."""
        latest = self._latest
        return latest is not None and latest.connected and time.monotonic() - latest.taken_s < 5.0

    def metrics_text(self) -> str:
        """The body of a scrape."""
        return self._metrics()


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on connections which never ask for anything, and on an address that has too many."""

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        if self._connections_of_its_address() > MAX_CONNECTIONS_OF_ONE_ADDRESS:
            transport.abort()
        else:
            self.loop.call_later(FIRST_BYTES_S, self._hang_up_if_silent)

    def _connections_of_its_address(self) -> int:
        clients = [getattr(connection, "client", None) or ("",) for connection in self.connections]
        return sum(1 for client in clients if client[0] == (self.client or ("",))[0])

    def _hang_up_if_silent(self) -> None:
        connection, request = getattr(self, "transport", None), getattr(self, "cycle", None)
        if request is None and connection is not None and not connection.is_closing():
            connection.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)  # from now on nobody is turned away, though the first answer takes half a second
    except OSError as error:
        reason = error.strerror or str(error)
        wanted = "a port above 1023" if isinstance(error, PermissionError) else "a free port"
        raise UserError(f"dashboard {host}:{port}: {reason}; expected {wanted}", ExitCode.UNAVAILABLE) from None
    return listener
