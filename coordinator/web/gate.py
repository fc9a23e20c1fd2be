"""Stands before every page: foreign hosts and pages, floods, login, read-only mode, security headers."""

import asyncio
import math
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.web.access import COOKIE, Access, Caller

OPEN_PATHS = frozenset({"/login", "/healthz", "/static/style.css", "/static/theme.js", "/static/icon.svg"})
SECURITY_HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    # Not no-referrer: with it, browsers send `Origin: null` with our own login form.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
# Who asks too often waits for the refusal: a client that only repeats itself cannot repeat itself faster than this.
REFUSAL_DELAY_S = 0.5


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, access: Access, read_only: bool, metrics_open: bool) -> None:
        self._app, self._access, self._read_only = app, access, read_only
        self._open_paths = OPEN_PATHS | ({"/metrics"} if metrics_open else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        if scope["type"] != "http":
            return
        caller = caller_of(scope)
        scope["caller"] = caller
        refusal = self._refusal(scope, caller)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 429:
                    await asyncio.sleep(REFUSAL_DELAY_S)
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, caller: Caller) -> Response | None:
        path, acts = scope["path"], scope["method"] not in ("GET", "HEAD")
        if not self._access.is_our_host(caller.host):
            return refused(421, f"no dashboard for the host {caller.host[:100]!r}; use localhost or set a token")
        if wait_s := self._access.requests.take(caller.address):
            return refused(429, "too many requests", wait_s)
        if acts and not self._access.is_our_page(caller):
            return refused(403, "the request comes from another site's page")
        if path not in self._open_paths and not self._access.knows(caller):
            if path == "/" and not acts:
                return RedirectResponse("/login", 303)
            return refused(401, "log in, or send the header Authorization: Bearer TOKEN")
        if acts and self._read_only and path not in ("/login", "/logout"):
            return refused(403, "this dashboard is read-only")
        return None


def refused(status: int, message: str, wait_s: float = 0.0) -> Response:
    """One line of JSON; `wait_s`: when to try again."""
    headers = {"cache-control": "no-store"}
    if wait_s:
        headers["retry-after"] = str(math.ceil(wait_s))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": message}, status, headers)


def caller_of(scope: Scope) -> Caller:
    """Who asks, from the connection and the headers."""
    headers = Headers(scope=scope)
    kind, _, token = headers.get("authorization", "").partition(" ")
    client = scope.get("client")
    return Caller(
        client[0] if client else "",
        headers.get("host", ""),
        headers.get("origin"),
        token.strip() if kind.lower() == "bearer" else None,
        _cookie(headers.get("cookie", "")),
    )


def _cookie(header: str) -> str | None:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel else None
