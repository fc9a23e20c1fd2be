"""Real brokers, real programs, and a watcher that sees what a third party at the broker sees."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_broker import MOSQUITTO, OWN_RIGHTS, PATIENCE_S, free_port, wait_until

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.mqtt_link import Connected, Message, MqttLink, Outgoing
from edge_agent.protocol.topics import SiteTopics

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.broker)
            if MOSQUITTO is None:
                item.add_marker(pytest.mark.skip(reason="mosquitto is not on PATH: apt install mosquitto"))


class Broker:
    """A mosquitto on a free loopback port."""

    def __init__(self, folder: Path, extra: str = "", port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = folder
        # MQTT's own limit, as in mosquitto 2.0; the default of 2.1 is less than some tests send.
        self._extra = extra or "allow_anonymous true\nmax_packet_size 268435455\n"
        self._child: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        configuration = self.folder / f"mosquitto-{self.port}.conf"
        configuration.write_text(
            f"listener {self.port} 127.0.0.1\nset_tcp_nodelay true\npersistence false\n{OWN_RIGHTS}{self._extra}"
        )
        with (self.folder / f"mosquitto-{self.port}.log").open("ab") as log:
            self._child = subprocess.Popen([MOSQUITTO or "", "-c", str(configuration)], stdout=log, stderr=log)
        wait_until(self._listens, "mosquitto listens")

    def kill(self) -> None:
        """As a power cut would."""
        assert self._child
        self._child.kill()
        self._child.wait()

    def _listens(self) -> bool:
        assert self._child
        assert self._child.poll() is None, (self.folder / f"mosquitto-{self.port}.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Program:
    """A program of ours in a process of its own; its output may never hold a traceback."""

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        clean = {key: value for key, value in os.environ.items() if not key.startswith("NONN_")}
        with log.open("wb") as output:
            self.child = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                env={**clean, **environment},
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, count: int = 1) -> None:
        def there() -> bool:
            assert self.child.poll() is None, self.output
            return self.output.count(text) >= count

        wait_until(there, f"{text!r} in {self.output!r}")

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.child.poll() is None:
            self.child.send_signal(number)
        return self.child.wait(PATIENCE_S)


class Watcher:
    """A third party at the broker: remembers every message below one site."""

    def __init__(self, port: int, site: str, protocol: str = "auto") -> None:
        self.topics = SiteTopics(site)
        self.messages: list[Message] = []
        # It is not polled while a test waits for a program, which takes long on a busy machine.
        settings = BrokerSettings.model_validate({"port": port, "protocol": protocol, "keepalive_s": 300})
        self.link = MqttLink(settings, f"watcher-{secrets.token_hex(4)}", [(f"{self.topics.root}/#", 1)])
        self.connections: list[Connected] = []
        self.until(lambda: bool(self.connections), "watcher connected")
        self.listen(0.1)

    def listen(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._poll(left)

    def until(self, reached: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not reached():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
            self._poll(0.05)

    def publish(self, topic: str, payload: bytes, retain: bool = False, qos: int = 1) -> None:
        self.link.publish(Outgoing(topic, payload, qos, retain))
        self._poll(0.0)

    def on(self, topic: str) -> list[Message]:
        return [message for message in self.messages if message.topic == topic]

    def latest(self, topic: str) -> dict[str, object]:
        """The last message that is JSON of our protocol, or {}."""
        found = self.on(topic)
        return json.loads(found[-1].payload) if found and found[-1].payload else {}

    def until_state(self, topic: str, state: str) -> dict[str, object]:
        self.until(lambda: self.latest(topic).get("state") == state, f"{topic} is {state}")
        return self.latest(topic)

    def _poll(self, timeout_s: float) -> None:
        for event in self.link.poll(timeout_s):
            if isinstance(event, Message):
                self.messages.append(event)
            elif isinstance(event, Connected):
                self.connections.append(event)


class Stage:
    """What one test started, ended with it."""

    def __init__(self, folder: Path, tiny: Path) -> None:
        self._folder = folder
        self._tiny = tiny
        self._programs: list[Program] = []
        self._watchers: list[Watcher] = []
        self._brokers: list[Broker] = []
        self.site = f"site-{secrets.token_hex(4)}"

    def broker(self, extra: str = "", port: int | None = None) -> Broker:
        self._brokers.append(Broker(self._folder, extra, port))
        return self._brokers[-1]

    def watcher(self, port: int, protocol: str = "auto") -> Watcher:
        self._watchers.append(Watcher(port, self.site, protocol))
        return self._watchers[-1]

    def program(self, module: str, port: int, *arguments: str, **environment: str) -> Program:
        log = self._folder / f"{len(self._programs)}-{module}.log"
        shared = {"NONN_SITE": self.site, "NONN_BROKER_PORT": str(port), "NONN_BROKER_HOST": "127.0.0.1"}
        self._programs.append(Program(module, arguments, {**shared, **environment}, log))
        return self._programs[-1]

    def agent(self, port: int, device: str, students: str, *arguments: str, **environment: str) -> Program:
        more = ["--device", device, "--students", students, "--telemetry-s", "0.3", *arguments]
        environment = {"NONN_PRECISION": "int8", **environment}  # answers that tests can foresee
        return self.program("edge_agent.cli", port, "run", "--deployment", str(self._tiny), *more, **environment)

    def coordinator(self, port: int, *arguments: str, **environment: str) -> Program:
        more = ["--deployment", str(self._tiny), *arguments]
        return self.program("coordinator.cli", port, "run", *more, **environment)

    def image(self) -> Path:
        """An 8 x 8 grey PNG."""
        path = self._folder / "image.png"
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
        return path

    def data_set(self) -> Path:
        """A folder of test/CLASS/*.png."""
        folder = self._folder / "set"
        for number, name in enumerate(("circle", "square", "triangle")):
            (folder / "test" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 80 * number, np.uint8)).save(folder / "test" / name / "0.png")
        return folder

    def close(self) -> None:
        for watcher in self._watchers:
            watcher.link.close()
        for program in self._programs:
            program.end(signal.SIGKILL)
        for broker in self._brokers:
            broker.kill()
        for program in self._programs:
            assert "Traceback" not in program.output, program.output


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One mosquitto for all tests that leave it alone; their sites differ."""
    started = Broker(tmp_path_factory.mktemp("broker"))
    yield started
    started.kill()


@pytest.fixture
def stage(tmp_path: Path, tiny: Path) -> Iterator[Stage]:
    opened = Stage(tmp_path, tiny)
    yield opened
    opened.close()
