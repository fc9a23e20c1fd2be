"""The addresses that the web server answers."""

import hashlib
from importlib import resources
from typing import Protocol
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from coordinator.settings import CoordinatorSettings
from coordinator.web.access import COOKIE, SESSION_S, Access
from coordinator.web.deploys import (
    BUNDLE_TIMEOUT_S,
    MAX_BUNDLE_BYTES,
    MAX_ORDER_BYTES,
    DeployDesk,
    DeployOptions,
    parse_options,
)
from coordinator.web.gate import Gate, refused
from coordinator.web.snapshot import ShownDeployment
from coordinator.web.streams import MAX_STREAMS, Broadcast, EventStream
from coordinator.web.uploads import ImageDesk, Refusal, UploadPace, read_body
from coordinator.web.view import describe_deployment
from edge_agent import __version__
from edge_agent.console.exposition import CONTENT_TYPE

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
MAX_FORM_BYTES = 4096


class Live(Protocol):
    """What the pages ask of the running server."""

    def shown_deployment(self) -> ShownDeployment | None:
        """The deployment of the latest answers."""
        ...

    def is_live(self) -> bool:
        """The live loop turns and has its broker."""
        ...

    def metrics_text(self) -> str:
        """The body of a scrape."""
        ...


def build_app(
    settings: CoordinatorSettings, access: Access, broadcast: Broadcast, desk: ImageDesk, live: Live
) -> ASGIApp:
    """The whole site behind its gate."""
    pages = _Pages(settings, access, broadcast, desk, live)
    app = Starlette(
        routes=[
            Route("/", pages.index),
            Route("/login", pages.login_form),
            Route("/login", pages.log_in, methods=["POST"]),
            Route("/logout", pages.log_out, methods=["POST"]),
            Route("/static/{name}", pages.static),
            Route("/api/site", pages.site),
            Route("/api/events", pages.events),
            Route("/api/classify", pages.classify, methods=["POST"]),
            Route("/api/deploy", pages.deploy, methods=["POST"]),
            Route("/api/rollback", pages.roll_back, methods=["POST"]),
            Route("/metrics", pages.metrics),
            Route("/healthz", pages.health),
        ],
        exception_handlers={Refusal: _refused, 404: _not_here, 405: _not_so},
    )
    return Gate(app, access, settings.dashboard.read_only, settings.dashboard.metrics_open)


class _Pages:
    def __init__(
        self, settings: CoordinatorSettings, access: Access, broadcast: Broadcast, desk: ImageDesk, live: Live
    ) -> None:
        self._settings, self._access, self._broadcast = settings, access, broadcast
        self._desk, self._live = desk, live
        self._deploys = DeployDesk(settings)
        self._pace = UploadPace()
        # All files in memory: what is not in this dictionary cannot be asked for, whatever the path looks like.
        folder = resources.files("coordinator.web") / "static"
        self._files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

    async def index(self, request: Request) -> Response:
        return self._file("index.html", request)

    async def login_form(self, request: Request) -> Response:
        return self._file("login.html", request)

    async def static(self, request: Request) -> Response:
        return self._file(request.path_params["name"], request)

    async def log_in(self, request: Request) -> Response:
        if wait_s := self._access.logins.take(request.scope["caller"].address):
            return refused(429, "too many attempts", wait_s)
        form = parse_qs((await read_body(request, self._pace, MAX_FORM_BYTES)).decode(errors="replace"))
        session = self._access.log_in(form.get("token", [""])[0])
        if session is None:
            return self._file("login.html", request, status=401)
        answer = RedirectResponse("/", 303)
        secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
        answer.set_cookie(COOKIE, session, max_age=int(SESSION_S), httponly=True, samesite="strict", secure=secure)
        return answer

    async def log_out(self, request: Request) -> Response:
        self._access.log_out(request.scope["caller"].session)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer

    async def site(self, _request: Request) -> Response:
        shown = self._live.shown_deployment()
        dashboard = self._settings.dashboard
        return JSONResponse(
            {
                "site": self._settings.site,
                "coordinator": self._settings.coordinator,
                "version": __version__,
                "deadline_ms": self._settings.deadline_ms,
                "read_only": dashboard.read_only,
                "login": self._access.needs_login,
                "updates": {
                    "taken": self._deploys.takes_updates,
                    "signed": self._settings.updates.trusted_keys is not None,
                },
                "deployment": describe_deployment(shown) if shown else None,
            },
            headers={"cache-control": "no-store"},
        )

    async def events(self, _request: Request) -> ASGIApp:
        if self._broadcast.open_streams >= MAX_STREAMS:
            raise Refusal(503, f"{MAX_STREAMS} pages are open already", wait_s=5.0)
        return EventStream(self._broadcast)

    async def classify(self, request: Request) -> Response:
        if wait_s := self._access.images.take(request.scope["caller"].address):
            raise Refusal(429, "too many images; programs send frames over MQTT", wait_s)
        return JSONResponse(await self._desk.classify(await read_body(request, self._pace)))

    async def deploy(self, request: Request) -> Response:
        options = self._deploy_options(request)
        content = await read_body(request, self._pace, MAX_BUNDLE_BYTES, BUNDLE_TIMEOUT_S, "the bundle")
        return JSONResponse(await self._deploys.deploy(content, options), 202)

    async def roll_back(self, request: Request) -> Response:
        options = self._deploy_options(request)
        content = await read_body(request, self._pace, MAX_ORDER_BYTES, what="the order")
        return JSONResponse(await self._deploys.roll_back(content, options), 202)

    def _deploy_options(self, request: Request) -> DeployOptions:
        if wait_s := self._access.deploys.take(request.scope["caller"].address):
            raise Refusal(429, "too many deployments", wait_s)
        return parse_options(request.query_params.multi_items())

    async def metrics(self, _request: Request) -> Response:
        return Response(self._live.metrics_text(), media_type=CONTENT_TYPE)

    async def health(self, _request: Request) -> Response:
        live = self._live.is_live()
        return PlainTextResponse("ok\n" if live else "no broker, or a loop that stands still\n", 200 if live else 503)

    def _file(self, name: str, request: Request, status: int = 200) -> Response:
        content = self._files.get(name)
        if content is None:
            return refused(404, "no such page")
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag and status == 200:
            return Response(status_code=304, headers=headers)
        kind = KINDS.get(name.rpartition(".")[2], "application/octet-stream")
        return Response(content, status, headers, media_type=kind)


def _refused(_request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101 (registered for this type only)
    return refused(refusal.status, refusal.message, refusal.wait_s)


def _not_here(_request: Request, _error: Exception) -> Response:
    return refused(404, "no such page")


def _not_so(_request: Request, _error: Exception) -> Response:
    return refused(405, "not in this way")
