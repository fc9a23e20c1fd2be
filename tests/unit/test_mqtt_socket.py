"""Which address of a broker's name is taken."""

import socket
from collections.abc import Iterator

import pytest

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.mqtt_socket import BrokerSocket


@pytest.fixture
def listeners() -> Iterator[tuple[socket.socket, socket.socket]]:
    """IPv6 and IPv4 loopback, one port."""
    with socket.socket(socket.AF_INET) as four, socket.socket(socket.AF_INET6) as six:
        four.bind(("127.0.0.1", 0))
        four.listen()
        four.settimeout(5)
        try:
            six.bind(("::1", four.getsockname()[1]))
        except OSError as error:
            pytest.skip(f"no IPv6 loopback here: {error}")
        six.listen()
        six.settimeout(5)
        yield six, four


def resolve_ipv6_first(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """As a name does on a network with IPv6."""
    stream = socket.SOCK_STREAM
    found = [
        (socket.AF_INET6, stream, 6, "", ("::1", port, 0, 0)),
        (socket.AF_INET, stream, 6, "", ("127.0.0.1", port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_words: found)


def test_ipv4_is_taken_before_ipv6(
    listeners: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, four = listeners
    port = four.getsockname()[1]
    resolve_ipv6_first(monkeypatch, port)
    link = BrokerSocket(BrokerSettings(host="localhost", port=port), None)
    accepted, _ = four.accept()
    accepted.close()
    link.close()


def test_a_broker_on_ipv6_alone_is_found(
    listeners: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    six, four = listeners
    port = four.getsockname()[1]
    four.close()
    resolve_ipv6_first(monkeypatch, port)
    link = BrokerSocket(BrokerSettings(host="localhost", port=port), None)
    accepted, _ = six.accept()
    accepted.close()
    link.close()


def test_a_broker_that_is_nowhere_is_an_error_of_its_address(
    listeners: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listeners[1].getsockname()[1]
    for listener in listeners:
        listener.close()
    resolve_ipv6_first(monkeypatch, port)
    with pytest.raises(ConnectionRefusedError):
        BrokerSocket(BrokerSettings(host="localhost", port=port), None)
