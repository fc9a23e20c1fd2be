"""A site as nonn-coordinator init makes it, its broker as its configuration says, and clients with certificates."""

import signal
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from real_broker import MOSQUITTO, wait_until

from coordinator.cli import main as coordinator_main
from coordinator.provisioning.authority import Authority, Issued
from coordinator.provisioning.site_folder import SiteFolder


def run(*words: str | Path) -> int:
    """nonn-coordinator, in this process."""
    return coordinator_main([str(word) for word in words])


@dataclass
class Site:
    """A folder of nonn-coordinator init."""

    folder: Path
    port: int

    @property
    def name(self) -> str:
        return SiteFolder(self.folder).ledger.site

    def device(self, action: str, *words: str | Path) -> int:
        return run("device", action, *words, "--dir", self.folder)

    def card(self, name: str) -> Path:
        return self.folder / f"cards/{name}/nonn-edge.toml"

    def settings(self, name: str) -> Path:
        folder = "coordinator" if name == "coordinator" else f"clients/{name}"
        return self.folder / folder / f"{name}.toml"

    def authority(self) -> Authority:
        return SiteFolder(self.folder).authority()

    def certificate(self, name: str, days: float = 1, authority: Authority | None = None) -> "Pair":
        """A certificate of the site's authority that no tool knows of."""
        issued = (authority or self.authority()).issue_client(name, datetime.now(UTC), days)
        return Pair.of(self.folder / "test-certificates", name, issued)


@dataclass(frozen=True)
class Pair:
    """Certificate and key on disk."""

    certificate: Path
    key: Path

    @classmethod
    def of(cls, folder: Path, name: str, issued: Issued) -> "Pair":
        folder.mkdir(exist_ok=True)
        pair = cls(folder / f"{name}-{issued.serial:x}.pem", folder / f"{name}-{issued.serial:x}.key")
        pair.certificate.write_text(issued.certificate)
        pair.key.write_text(issued.key)
        return pair


class SiteBroker:
    """mosquitto with exactly the configuration that init wrote, plus what a test appends."""

    def __init__(self, site: Site, extra: str = "") -> None:
        self.site = site
        self._configuration = site.folder / "broker/mosquitto.conf"
        if extra:
            self._configuration.write_text(self._configuration.read_text() + extra)
        self._child = subprocess.Popen(
            [MOSQUITTO or "", "-c", str(self._configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._listens, "mosquitto listens")

    @property
    def log(self) -> str:
        return (self.site.folder / "broker/broker.log").read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.log, f"{text!r} in {self.log!r}")

    def reload(self) -> None:
        reloads = self.log.count("Reloading config")
        self._child.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log.count("Reloading config") > reloads, "mosquitto reloads")
        time.sleep(0.2)  # the line comes before the work

    def stop(self) -> None:
        self._child.terminate()
        self._child.wait()

    def _listens(self) -> bool:
        assert self._child.poll() is None, self.log
        try:
            socket.create_connection(("127.0.0.1", self.site.port), timeout=1).close()
        except OSError:
            return False
        return True


class Client:
    """A bare MQTT 5 client with a certificate: the broker tells it why it refuses something."""

    def __init__(
        self, site: Site, pair: Pair | None, client_id: str = "", will: str = "", connect: bool = True
    ) -> None:
        self.received: dict[str, bytes] = {}
        self.refused: dict[str, bool] = {}
        self.connected: str | None = None
        self.trouble = ""
        self._topics: dict[int, str] = {}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        if pair is not None:
            self._client.tls_set(str(site.folder / "authority/ca.pem"), str(pair.certificate), str(pair.key))
        if will:
            self._client.will_set(will, b"gone", qos=1, retain=True)
        self._client.on_connect = lambda _c, _u, _f, reason, _p: setattr(self, "connected", str(reason))
        self._client.on_disconnect = lambda _c, _u, _f, reason, _p: setattr(self, "trouble", str(reason))
        self._client.on_message = lambda _c, _u, m: self.received.__setitem__(m.topic, bytes(m.payload))
        self._client.on_publish = self._published
        try:
            self._client.connect("localhost", site.port)
            self._client.loop_start()
            if connect:
                wait_until(lambda: self.connected is not None, "login")
        except (OSError, ssl.SSLError) as error:
            self.trouble = str(error)

    def subscribe(self, *filters: str) -> None:
        done: list[int] = []
        self._client.on_subscribe = lambda *_: done.append(1)
        self._client.subscribe([(topic, 0) for topic in filters])
        wait_until(lambda: bool(done), "subscribed")

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        receipt = self._client.publish(topic, payload, qos=1, retain=retain)
        self._topics[receipt.mid] = topic

    def may_write(self, topics: list[str]) -> set[str]:
        """Topics of these that the broker takes messages on."""
        for topic in topics:
            self.publish(topic, b"x")
        wait_until(lambda: len(self.refused) >= len(topics), f"{len(topics)} acknowledgements, got {self.refused}")
        return {topic for topic in topics if not self.refused[topic]}

    def _published(
        self, _client: object, _user: object, mid: int, reason: mqtt.ReasonCode, _properties: object
    ) -> None:
        self.refused[self._topics.get(mid, "")] = reason.is_failure

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
