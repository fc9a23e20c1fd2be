"""The link itself: versions, embedded broker, TLS, TCP_NODELAY, refusals, absent and strange brokers."""

import importlib.util
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.link import Connected, Disconnected, Event, Message, Outgoing
from edge_agent.protocol.link_choice import open_link as open_chosen_link

PATIENCE_S = 45.0


def settings(port: int, **more: Any) -> BrokerSettings:
    return BrokerSettings.model_validate({"port": port, **more})


class OpenLink:
    """A link and what it reported."""

    def __init__(self, broker: BrokerSettings, name: str = "link-under-test", **more: Any) -> None:
        self.link: Any = open_chosen_link(broker, name, more.pop("subscriptions", [(f"{name}/#", 1)]), **more)
        self.events: list[Event] = []

    def until(self, reached: Callable[[Event], bool]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for event in self.link.poll(0.05):
                self.events.append(event)
                if reached(event):
                    return event
        raise AssertionError(f"not seen; events: {self.events[-5:]}")

    def connected(self) -> str:
        return str(self.until(lambda event: isinstance(event, Connected)).protocol)

    def nodelay(self) -> int:
        return int(self.link.nodelay)


@pytest.fixture(params=["own", "paho"])
def opened(request: Any) -> Iterator[Callable[..., OpenLink]]:
    links: list[OpenLink] = []

    def open_link(*arguments: Any, **more: Any) -> OpenLink:
        broker, *names = arguments
        links.append(OpenLink(broker.model_copy(update={"client": request.param}), *names, **more))
        return links[-1]

    yield open_link
    for entry in links:
        entry.link.close()


@pytest.mark.parametrize(("protocol", "spoken"), [("auto", "5"), ("5", "5"), ("3.1.1", "3.1.1")])
def test_versions_and_tcp_nodelay(opened: Any, broker: Any, protocol: str, spoken: str) -> None:
    link = opened(settings(broker.port, protocol=protocol))
    assert link.connected() == spoken
    assert link.nodelay() == 1
    link.link.publish(Outgoing("link-under-test/x", b"\0\xff", qos=1))
    message = link.until(lambda event: isinstance(event, Message))
    assert (message.topic, message.payload, message.retain) == ("link-under-test/x", b"\0\xff", False)


def gathered(link: OpenLink, count: int) -> list[bytes]:
    """What one poll brings when it lets messages gather before it looks."""
    for number in range(count):
        link.link.publish(Outgoing("link-under-test/x", bytes([number])))
    return [event.payload for event in link.link.poll(5.0, gather_s=0.5) if isinstance(event, Message)]


def test_messages_that_gather_come_together_and_in_order(opened: Any, broker: Any) -> None:
    link = opened(settings(broker.port))
    link.connected()
    link.link.poll(0.2)  # the subscription is acknowledged
    assert gathered(link, 50) == [bytes([number]) for number in range(50)]
    started = time.monotonic()
    assert link.link.poll(0.2, gather_s=0.1) == []
    assert 0.3 <= time.monotonic() - started < 1.0


def test_the_socket_after_a_reconnect_has_nodelay_too(opened: Any, stage: Any) -> None:
    broker = stage.broker()
    link = opened(settings(broker.port))
    link.connected()
    broker.kill()
    link.until(lambda event: isinstance(event, Disconnected))
    broker.start()
    link.connected()
    assert link.nodelay() == 1
    link.link.publish(Outgoing("link-under-test/again", b"1", qos=1))
    link.until(lambda event: isinstance(event, Message))  # subscribed again


def burst_ms(opened: Any, broker: Any, rounds: int = 25) -> float:
    """Median time until four messages at once have arrived at a link that only listens."""
    sender, receiver = opened(settings(broker.port), "sender"), opened(settings(broker.port), "receiver")
    for link in (sender, receiver):
        link.connected()
        link.link.poll(0.2)  # the subscription is acknowledged
    times_ms = []
    for _ in range(rounds):
        started = time.perf_counter()
        for number in range(4):
            sender.link.publish(Outgoing("receiver/x", bytes([number]) * 1024))
        sender.link.poll(0.0)
        receiver.until(lambda event: isinstance(event, Message) and event.payload[0] == 3)
        times_ms.append((time.perf_counter() - started) * 1000)
    return statistics.median(times_ms)


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux alone lets a program acknowledge at once")
def test_a_broker_without_nodelay_does_not_hold_us_up(opened: Any, stage: Any) -> None:
    # Later lines win: the same broker as everywhere, but as Debian configures it. 41 ms without quick ACKs.
    assert burst_ms(opened, stage.broker("set_tcp_nodelay false\nallow_anonymous true\n")) < 20


def test_an_embedded_broker_that_only_speaks_3_1_1(opened: Any, tmp_path: Path, stage: Any) -> None:
    if importlib.util.find_spec("amqtt") is None:
        pytest.skip("amqtt is not installed: pip install '.[demo]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "amqtt.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "trainer.demo.embedded_broker", str(port)], stdout=log, stderr=log
        )
    try:
        link = opened(settings(port))
        assert link.connected() == "3.1.1"
        assert link.nodelay() == 1
        link.link.publish(Outgoing("link-under-test/x", b"hello", qos=1))
        assert link.until(lambda event: isinstance(event, Message)).payload == b"hello"
        # The whole chain on the embedded broker:
        stage.agent(port, "pi-1", "0,1,2").wait_for("MQTT 3.1.1")
        stage.coordinator(port).wait_for("pi-1 is online")
        client = stage.program("coordinator.cli", port, "classify", str(stage.image()))
        assert client.child.wait(30) == 0, client.output
    finally:
        child.terminate()
        child.wait(10)


def test_tls(opened: Any, stage: Any, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on PATH: apt install openssl")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(tmp_path / "key.pem"),
         "-out", str(tmp_path / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    broker = stage.broker(f"allow_anonymous true\ncertfile {tmp_path / 'cert.pem'}\nkeyfile {tmp_path / 'key.pem'}\n")
    link = opened(settings(broker.port, ca_file=str(tmp_path / "cert.pem")))
    assert link.connected() == "5"
    assert link.nodelay() == 1
    link.link.publish(Outgoing("link-under-test/x", b"s" * 100_000, qos=1))
    assert len(link.until(lambda event: isinstance(event, Message)).payload) == 100_000
    assert len(gathered(link, 50)) == 50  # each in a TLS record of its own
    plain = opened(settings(broker.port), "plain")
    assert not plain.until(lambda event: isinstance(event, Disconnected)).refused


@pytest.fixture
def locked(stage: Any, tmp_path: Path) -> Any:
    """A broker that asks for a password: user `pi`, password `secret`."""
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "pi", "secret"], check=True, capture_output=True)
    return stage.broker(f"allow_anonymous false\npassword_file {passwords}\n")


@pytest.mark.parametrize("login", [{}, {"NONN_BROKER_USERNAME": "pi", "NONN_BROKER_PASSWORD": "wrong-password"}])
def test_a_refused_login_ends_clients_and_keeps_servers_waiting(stage: Any, locked: Any, login: dict[str, str]) -> None:
    agent = stage.agent(locked.port, "pi-1", "0", **login)
    coordinator = stage.coordinator(locked.port, **login)
    jobs = (["classify", str(stage.image())], ["evaluate", "--dataset", str(stage.data_set())])
    for client in [stage.program("coordinator.cli", locked.port, *words, **login) for words in jobs]:
        assert client.child.wait(30) == 69
        (line,) = client.output.splitlines()
        assert line.startswith(f"error: broker 127.0.0.1:{locked.port}: ")
        assert "authori" in line.lower() or "password" in line.lower()
        assert "wrong-password" not in line
    for program in (agent, coordinator):
        program.wait_for("no broker")
    time.sleep(2.0)  # attempts go on
    for program in (agent, coordinator):
        assert program.child.poll() is None
        assert program.output.count("no broker") == 1, program.output
        assert program.end() == 0


def test_the_right_password_opens(stage: Any, locked: Any) -> None:
    login = {"NONN_BROKER_USERNAME": "pi", "NONN_BROKER_PASSWORD": "secret"}
    stage.agent(locked.port, "pi-1", "0", **login).wait_for("connected to")


def test_without_a_broker_clients_say_so_and_servers_wait_for_it(stage: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    agent = stage.agent(port, "pi-1", "0,1,2")
    client = stage.program("coordinator.cli", port, "classify", "--wait", "1", str(stage.image()))
    assert client.child.wait(30) == 69
    (line,) = client.output.splitlines()
    assert line.startswith(f"error: no broker at 127.0.0.1:{port} after 1 s: Connection refused; expected ")
    agent.wait_for("no broker")
    stage.broker(port=port)
    agent.wait_for("connected to")
    assert agent.output.count("no broker") == 1


def test_a_site_without_coordinator_or_agent_is_named(stage: Any, broker: Any) -> None:
    client = stage.program("coordinator.cli", broker.port, "classify", "--wait", "0.5", str(stage.image()))
    assert client.child.wait(30) == 69
    assert "coordinator 'main' of site" in client.output
    assert "is not online" in client.output
    stage.coordinator(broker.port).wait_for("connected to")
    client = stage.program("coordinator.cli", broker.port, "classify", "--wait", "0.5", str(stage.image()))
    assert client.child.wait(30) == 69
    assert "no online device runs students 0, 1, 2" in client.output


@pytest.mark.parametrize("behaviour", ["silent", "http"])
def test_a_port_where_something_else_answers(stage: Any, behaviour: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        over = threading.Event()

        def serve() -> None:
            kept = []
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                if behaviour == "http":
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                kept.append(connection)
                if behaviour != "silent":
                    connection.close()
            for connection in kept:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            port = server.getsockname()[1]
            agent = stage.agent(port, "pi-1", "0", NONN_BROKER_KEEPALIVE_S="2")
            client = stage.program("coordinator.cli", port, "classify", "--wait", "2", str(stage.image()))
            assert client.child.wait(30) == 69, client.output
            (line,) = client.output.splitlines()
            assert line.startswith(f"error: no broker at 127.0.0.1:{port} after 2 s: ")
            if behaviour != "silent":
                agent.wait_for("no broker")
            assert agent.child.poll() is None
            assert agent.end() == 0
        finally:
            over.set()
            thread.join()
