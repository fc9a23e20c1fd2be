"""Who must not get in: refused by the real broker, in its log, and explained by doctor to whoever is refused."""

import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path

import pytest
from real_broker import free_port, wait_until
from secure_site import Client, Pair, Site, SiteBroker, run

from coordinator.cli import main
from coordinator.provisioning.authority import Authority
from edge_agent.protocol import mqtt_packets as packets
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.link import Connected, Disconnected, Outgoing
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.mqtt_reader import PacketReader

pytestmark = pytest.mark.broker
ROOT = "nonn/1/home"


def doctor(site: Site, pair: Pair | None, *more: str, ca: Path | None = None) -> tuple[int, dict[str, str]]:
    """Exit code, and the text of every finding that is not OK by its check."""
    words = ["--broker-host", "localhost", "--broker-port", str(site.port), "--wait", "0.2", "--no-frames", "--json"]
    if pair is not None:
        words += ["--broker-ca-file", str(ca or site.folder / "authority/ca.pem")]
        words += ["--broker-certificate-file", str(pair.certificate), "--broker-key-file", str(pair.key)]
    code, findings = run_doctor([*words, *more])
    return code, {f["check"]: f"{f['text']} -> {f['next_step']}" for f in findings if f["level"] != "OK"}


def logged_in(site: Site, member: str, client_id: str) -> MqttLink:
    """A link with this member's certificate."""
    own = site.certificate(member)
    settings = BrokerSettings(
        host="localhost", port=site.port, ca_file=site.folder / "authority/ca.pem", certificate_file=own.certificate,
        key_file=own.key,
    )  # fmt: skip
    link = MqttLink(settings, client_id, [])
    wait_until(lambda: any(isinstance(event, Connected) for event in link.poll(0.1)), "login")
    return link


def run_doctor(words: list[str]) -> tuple[int, list[dict[str, str]]]:
    output = io.StringIO()
    with redirect_stdout(output):
        code = main(["doctor", *words])
    return code, json.loads(output.getvalue())


def stranger() -> Authority:
    return Authority.create("elsewhere", datetime.now(UTC))


@pytest.mark.parametrize(
    ("attack", "logged", "told"),
    [
        ("wrong authority", "certificate verify failed", "another authority signed it"),
        ("expired", "certificate verify failed", "it ran out; renew it"),
        ("no certificate", "peer did not return a certificate", "set certificate_file and key_file"),
        ("plain", "wrong version number", "wants TLS; plain logins are refused"),
        ("foreign broker", "unknown ca", "a wrong ca_file, or not our broker"),
    ],
)
def test_a_login_is_refused_logged_and_explained(
    site: Site, site_broker: SiteBroker, attack: str, logged: str, told: str, tmp_path: Path
) -> None:
    before = len(site_broker.log)
    own_ca: Path | None = None
    pair: Pair | None = None
    if attack == "wrong authority":
        pair = site.certificate("pi-0", authority=stranger())
    elif attack == "expired":
        pair = site.certificate("pi-0", days=-0.5)
    elif attack == "foreign broker":
        pair, own_ca = site.certificate("pi-0"), tmp_path / "ca.pem"
        own_ca.write_text(stranger().certificate)
    if attack == "no certificate":
        words = ("--broker-ca-file", str(site.folder / "authority/ca.pem"))
        code, found = doctor(site, None, *words)
    else:
        code, found = doctor(site, pair, ca=own_ca)
    assert code == 1
    assert told in found["tls"]
    assert logged in site_broker.log[before:]
    assert "New client connected" not in site_broker.log[before:]


def test_doctor_on_the_brokers_machine_sees_what_was_refused(site: Site, site_broker: SiteBroker) -> None:
    doctor(site, None)
    doctor(site, site.certificate("pi-0", authority=stranger()))
    log = site.folder / "broker/broker.log"
    words = ["--config", str(site.settings("operator")), "--wait", "0.2", "--no-frames", "--json"]
    _, findings = run_doctor([*words, "--broker-log", str(log)])
    refused = [f["text"] for f in findings if f["check"] == "refused"]
    assert any("plain logins on the TLS port" in text for text in refused)
    assert any("certificates refused" in text for text in refused)


def test_an_old_tls_version_is_refused(site: Site, site_broker: SiteBroker) -> None:
    pair = site.certificate("pi-0")
    for version, accepted in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = ssl.create_default_context(cafile=str(site.folder / "authority/ca.pem"))
        context.load_cert_chain(pair.certificate, pair.key)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is what this test is about
            context.minimum_version = version
            context.maximum_version = version
        with socket.create_connection(("localhost", site.port)) as plain:
            if accepted:
                with context.wrap_socket(plain, server_hostname="localhost") as connection:
                    assert connection.version() == "TLSv1.2"
            else:
                with pytest.raises(ssl.SSLError):
                    context.wrap_socket(plain, server_hostname="localhost")


def test_a_device_does_not_pass_for_the_broker(site: Site) -> None:
    pair = site.certificate("localhost")  # the right name, but a device's certificate
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.certificate, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = site.certificate("pi-0")
        settings = BrokerSettings(
            host="localhost", port=listener.getsockname()[1], ca_file=site.folder / "authority/ca.pem",
            certificate_file=own.certificate, key_file=own.key,
        )  # fmt: skip
        child = os.fork()
        if child == 0:
            try:
                server.wrap_socket(listener.accept()[0], server_side=True)
            finally:
                os._exit(0)
        link = MqttLink(settings, "pi-0", [])
        events = link.poll(5.0)
        os.waitpid(child, 0)
    assert isinstance(events[0], Disconnected)
    assert "the broker's certificate" in events[0].reason


# --- a member of the site that wants more than its own


def test_another_devices_topics_are_closed_and_the_device_hears_why(site: Site, site_broker: SiteBroker) -> None:
    link = logged_in(site, "pi-1", "thief")
    link.publish(Outgoing(f"{ROOT}/node/pi-0/state", b"{}", qos=1, retain=True))
    events: list[object] = []
    wait_until(lambda: bool(events.extend(link.poll(0.1)) or events), "an answer")
    link.close()
    assert events == [Disconnected(f"publishing on {ROOT}/node/pi-0/state refused: Not authorized", refused=True)]


def test_a_will_on_another_devices_topic_is_not_sent(
    site: Site, site_broker: SiteBroker, clients: Callable[..., Client]
) -> None:
    watcher = clients(
        Pair(site.folder / "clients/operator/operator.pem", site.folder / "clients/operator/operator.key")
    )
    watcher.subscribe(f"{ROOT}/node/+/+")
    pair = site.certificate("pi-1")
    for topic in ("node/pi-0/state", "node/pi-1/state"):
        child = subprocess.Popen(
            [sys.executable, "-c", DIES_WITH_A_WILL, str(site.port), str(site.folder / "authority/ca.pem"),
             str(pair.certificate), str(pair.key), f"{ROOT}/{topic}"], stdout=subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    wait_until(lambda: f"{ROOT}/node/pi-1/state" in watcher.received, "its own will arrives")
    assert f"{ROOT}/node/pi-0/state" not in watcher.received


DIES_WITH_A_WILL = """
import sys, time
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
port, ca, certificate, key, topic = sys.argv[1:]
client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
client.tls_set(ca, certificate, key)
client.will_set(topic, b"gone", qos=1)
client.on_connect = lambda *_: print("here", flush=True)
client.connect("localhost", int(port))
client.loop_forever()
"""


def test_nobody_ends_an_agents_connection_with_its_client_id(
    site: Site, site_broker: SiteBroker, clients: Callable[..., Client]
) -> None:
    link = logged_in(site, "pi-0", "nonn-agent-home-pi-0")
    clients(site.certificate("pi-1"), client_id="nonn-agent-home-pi-0")
    assert link.poll(0.5) == []
    assert link.connected
    link.close()


# --- revoked


def test_a_revoked_device_is_out_at_once_and_for_good(tmp_path_factory: pytest.TempPathFactory) -> None:
    site = Site(tmp_path_factory.mktemp("revoked") / "nonn-site", free_port())
    assert run("init", site.folder, "--broker-host", "localhost", "--broker-port", str(site.port)) == 0
    assert site.device("add", "thief", "--role", "operator") == 0
    assert site.device("add", "watcher", "--role", "operator") == 0
    broker = SiteBroker(site)
    pair = Pair(site.folder / "clients/thief/thief.pem", site.folder / "clients/thief/thief.key")
    connected = Client(site, pair)
    watcher = Client(
        site, Pair(site.folder / "clients/watcher/watcher.pem", site.folder / "clients/watcher/watcher.key")
    )
    try:
        topic = f"{ROOT}/node/pi-0/update"
        connected.subscribe(f"{ROOT}/#")
        assert connected.may_write([topic]) == {topic}
        context = ssl.create_default_context(cafile=str(site.folder / "authority/ca.pem"))
        context.load_cert_chain(pair.certificate, pair.key)
        ticket = _session(context, site.port)

        assert site.device("revoke", "thief") == 0
        broker.reload()

        # The connection from before may live on, but it says and hears nothing any more.
        connected.received.clear()
        if not connected.trouble:
            connected.refused.clear()
            assert connected.may_write([topic]) == set()
        watcher.publish(topic, b"secret")
        wait_until(lambda: topic in watcher.refused, "published")
        time.sleep(0.2)
        assert connected.received == {}
        # A new one is refused, and doctor says why.
        code, found = doctor(site, pair)
        assert code == 1
        assert "it was revoked" in found["tls"]
        assert "certificate verify failed" in broker.log
        # A session ticket from before would spare the look at the certificate; the rules would hold all the same.
        assert _publish_code(context, site.port, ticket, topic) in (None, 0x87)
        assert site.device("list") == 0
    finally:
        connected.close()
        watcher.close()
        broker.stop()


def _session(context: ssl.SSLContext, port: int) -> ssl.SSLSession | None:
    with (
        socket.create_connection(("localhost", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(packets.encode_login(packets.Login("first", 60, None, None, None), is_5=True))
        connection.recv(100)
        assert connection.session is not None
        return connection.session


def _publish_code(context: ssl.SSLContext, port: int, ticket: ssl.SSLSession | None, topic: str) -> int | None:
    """The broker's answer to a publication over a session with an old ticket; None if it ends the connection."""
    reader = PacketReader(is_5=True)
    try:
        with (
            socket.create_connection(("localhost", port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=ticket) as connection,
        ):
            connection.settimeout(5)
            connection.sendall(packets.encode_login(packets.Login("resumed", 60, None, None, None), is_5=True))
            connection.sendall(packets.encode_publish(Outgoing(topic, b"x", qos=1), True, 1, False))
            while chunk := connection.recv(1000):
                for packet in reader.feed(chunk):
                    if isinstance(packet, packets.Acknowledged):
                        return packet.code
    except (OSError, ssl.SSLError):
        return None
    return None
