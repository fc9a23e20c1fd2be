"""Who may do what: login by token, sessions, foreign pages, floods. Pure but for the clock that it is given."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from coordinator.web.settings import DashboardSettings

COOKIE = "nonn_session"
SESSION_S = 7 * 24 * 3600.0
MAX_SESSIONS = 64
MAX_ADDRESSES = 1024
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Allowance:
    """So many acts at once, so many a second after that; for each key of its own."""

    def __init__(self, burst: float, per_s: float, clock: Callable[[], float]) -> None:
        self._burst, self._per_s, self._clock = burst, per_s, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """0 if allowed, else the seconds to wait."""
        now = self._clock()
        left, since = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._left[key] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > MAX_ADDRESSES:
            self._left.popitem(last=False)
        return wait_s


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request says of its sender."""

    address: str
    host: str
    origin: str | None
    bearer: str | None
    session: str | None


class Access:
    """Decides; the server only asks."""

    def __init__(self, settings: DashboardSettings, clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        token = settings.token
        self._token = hashlib.sha256(token.get_secret_value().encode()).digest() if token else None
        self._sessions: OrderedDict[str, float] = OrderedDict()
        # A page loads ten files and then streams; a script that polls faster than that does not need to.
        self.requests = Allowance(burst=200, per_s=50, clock=clock)
        self.logins = Allowance(burst=5, per_s=1 / 12, clock=clock)
        # An image in flight is a frame of the fleet: people drop a few, programs use MQTT.
        self.images = Allowance(burst=10, per_s=2, clock=clock)
        self.deploys = Allowance(burst=5, per_s=1 / 12, clock=clock)

    @property
    def needs_login(self) -> bool:
        """A token is set."""
        return self._token is not None

    def is_our_host(self, host: str) -> bool:
        """False for a name that somebody else's DNS points at loopback (DNS rebinding)."""
        if not self._settings.on_loopback or self.needs_login:
            return True
        return _without_port(host).lower() in LOCAL_NAMES | {self._settings.host.lower()}

    def is_our_page(self, caller: Caller) -> bool:
        """False for an act that another site's page asks the browser for."""
        return caller.origin is None or urlsplit(caller.origin).netloc.lower() == caller.host.lower()

    def knows(self, caller: Caller) -> bool:
        """Logged in, or no login needed."""
        if self._token is None:
            return True
        if caller.bearer is not None and self._is_token(caller.bearer):
            return True
        expires_s = self._sessions.get(caller.session or "", 0.0)
        return expires_s > self._clock()

    def log_in(self, token: str) -> str | None:
        """A new session's name, or None for a wrong token."""
        if not self._is_token(token):
            return None
        session = secrets.token_urlsafe(32)
        self._sessions[session] = self._clock() + SESSION_S
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def log_out(self, session: str | None) -> None:
        """Forget a session."""
        self._sessions.pop(session or "", None)

    def _is_token(self, token: str) -> bool:
        given = hashlib.sha256(token.encode(errors="replace")).digest()
        return self._token is not None and hmac.compare_digest(given, self._token)


def _without_port(host: str) -> str:
    """The name in a Host header.

    >>> _without_port("localhost:8080"), _without_port("[::1]:8080"), _without_port("pi.local")
    ('localhost', '[::1]', 'pi.local')
    """
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host


def url_host(host: str) -> str:
    """An address as it stands in a URL.

    >>> url_host("::1"), url_host("localhost")
    ('[::1]', 'localhost')
    """
    try:
        return f"[{host}]" if ip_address(host).version == 6 else host
    except ValueError:
        return host
