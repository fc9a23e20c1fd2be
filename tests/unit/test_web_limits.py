"""The web server on a real socket, without a site: slow clients, endless bodies, too many of everything."""

import asyncio
import contextlib
import http.client
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import coordinator.web.pages
import coordinator.web.server
import coordinator.web.uploads
from coordinator.settings import CoordinatorSettings
from coordinator.web.gate import REFUSAL_DELAY_S
from coordinator.web.server import WebServer
from coordinator.web.uploads import UploadPace


@contextlib.contextmanager
def serving(**dashboard):
    interval_s = sys.getswitchinterval()
    settings = CoordinatorSettings.model_validate({"dashboard": {"port": 0, **dashboard}})
    server = WebServer(settings, lambda _: None, lambda: "")
    server.start()
    try:
        yield server
    finally:
        server.stop()
        sys.setswitchinterval(interval_s)


@pytest.fixture
def server():
    with serving() as opened:
        yield opened


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def answer_of(connection):
    """(status, seconds until the server had hung up)."""
    began = time.monotonic()
    received = b""
    while chunk := connection.recv(4096):
        received += chunk
        if b"\r\n\r\n" in received:
            break
    return int(received.split()[1]) if received else None, time.monotonic() - began


def post(server, path, body, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def get_status(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def test_an_upload_that_stops_half_way_is_told_408(server, monkeypatch):
    monkeypatch.setattr(coordinator.web.uploads, "UPLOAD_TIMEOUT_S", 0.5)
    with connect(server) as slow:
        slow.sendall(b"POST /api/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf of a picture")
        status, seconds = answer_of(slow)
    assert status == 408
    assert 0.3 < seconds < 10


def test_an_upload_that_drips_is_told_408_too(server, monkeypatch):
    monkeypatch.setattr(coordinator.web.uploads, "UPLOAD_TIMEOUT_S", 0.5)
    with connect(server) as slow:
        slow.sendall(b"POST /api/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        slow.settimeout(0.02)
        deadline = time.monotonic() + 20
        received = b""
        while not received and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                slow.sendall(b"x")
                received = slow.recv(4096)
    assert received.split()[1] == b"408"


@pytest.mark.parametrize("first_bytes", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: loc"])
def test_who_never_asks_for_anything_is_hung_up_on(server, monkeypatch, first_bytes):
    monkeypatch.setattr(coordinator.web.server, "FIRST_BYTES_S", 0.5)
    with connect(server) as silent:
        silent.sendall(first_bytes)
        status, seconds = answer_of(silent)
    assert status is None
    assert seconds < 10


@pytest.mark.parametrize(
    ("path", "size_bytes"), [("/api/classify", 12_000_001), ("/api/deploy", 64_000_001), ("/api/rollback", 16_385)]
)
def test_bodies_have_a_limit_of_their_own(server, path, size_bytes):
    status, content = post(server, path, bytes(size_bytes))
    assert status == 413, content


@pytest.mark.parametrize(
    "query", ["frames=0", "agreement=2", "canary=Not%20An%20Id", "to=../../etc", "unknown=1", "latency_ratio=nan"]
)
def test_a_query_that_makes_no_sense_is_refused_by_name(server, query):
    status, content = post(server, f"/api/deploy?{query}", b"x")
    assert status == 400
    assert query.partition("=")[0].encode() in content


def test_deployments_are_slowed_down(server):
    statuses = [post(server, "/api/deploy?frames=0", b"")[0] for _ in range(8)]
    assert statuses[:5] == [400] * 5
    assert statuses[-1] == 429


def test_what_changes_a_site_needs_token_page_and_permission():
    token = "0123456789abcdef"
    allowed = {"Authorization": f"Bearer {token}"}
    with serving(token=token, read_only=True) as server:
        for path in ("/api/classify", "/api/deploy", "/api/rollback"):
            assert post(server, path, b"x")[0] == 401
            assert post(server, path, b"x", {"Authorization": "Bearer 0123456789abcdeF"})[0] == 401
            assert post(server, path, b"x", allowed)[0] == 403
            assert post(server, path, b"x", {**allowed, "Origin": "http://evil.example"})[0] == 403


def test_who_asks_too_often_waits_for_the_refusal(server):
    with ThreadPoolExecutor(4) as clients:
        deadline = time.monotonic() + 3.0

        def ask_on_and_on(_):
            statuses = []
            while time.monotonic() < deadline:
                statuses.append(post(server, "/login", b"token=guess")[0])
            return statuses

        statuses = [status for found in clients.map(ask_on_and_on, range(4)) for status in found]
    # Without the wait, four clients get thousands of refusals in this time.
    assert 4 <= statuses.count(429) <= 4 * (3.0 / REFUSAL_DELAY_S + 1)
    assert len(statuses) - statuses.count(429) <= 6


def connect_from(address, server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20, source_address=(address, 0))


def test_a_flood_from_one_address_leaves_room_for_others(server):
    """All of 127.0.0.0/8 is this machine: the flooder has one address, the page another."""
    asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.ExitStack() as flood:
        for _ in range(coordinator.web.server.MAX_CONNECTIONS):
            with contextlib.suppress(ConnectionError):  # the last ones are hung up on
                flood.enter_context(connect_from("127.0.0.2", server)).sendall(asked)
        time.sleep(REFUSAL_DELAY_S)
        assert get_status(server, "/login") == 200
        status, seconds = answer_of(flood.enter_context(connect_from("127.0.0.2", server)))
        assert status is None
        assert seconds < coordinator.web.server.FIRST_BYTES_S / 2
    time.sleep(0.2)
    with connect_from("127.0.0.2", server) as later:  # his places are free again
        later.sendall(asked)
        assert answer_of(later)[0] is not None


def test_uploads_share_one_rate():
    async def upload_twice():
        pace = UploadPace(bytes_per_s=100_000)

        async def upload():
            for _ in range(10):
                await pace.admit(1_000)

        began = time.monotonic()
        await asyncio.gather(upload(), upload())
        return time.monotonic() - began

    assert asyncio.run(upload_twice()) > 0.15  # 20,000 bytes at 100,000 a second, less what a timer rounds away
