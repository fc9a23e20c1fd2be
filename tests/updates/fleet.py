"""A site on this machine: mosquitto, agents and coordinator as processes, and what its retained messages say."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from leftovers import OPEN
from made_deployments import OfflineAnswers, make_version, write_directory
from real_broker import MOSQUITTO, free_port
from traffic import Traffic

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.bundle import Bundle
from edge_agent.protocol.link import Message
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.signature import SigningKey
from edge_agent.protocol.topics import SiteTopics

ROOT = Path(__file__).parents[2]
AGENT = (sys.executable, "-m", "edge_agent.cli")
COORDINATOR = (sys.executable, "-m", "coordinator.cli")


class Fleet:
    """Processes of one site, restarted when a test kills them as systemd would."""

    def __init__(self, folder: Path, first: Path, trusted: Path | None, replicas: tuple[int, ...] = (0,)) -> None:
        self.folder, self.first, self.trusted = folder, first, trusted
        self.port = free_port()
        self.names = [*(f"pi-{i}" for i in range(3)), *(f"spare-{i}" for i in replicas)]
        self.processes: dict[str, subprocess.Popen] = {}
        self.extra: dict[str, list[str]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def start_broker(self) -> None:
        (self.folder / "broker").mkdir(exist_ok=True)
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\npersistence false\n"
        )
        self._start("broker", [MOSQUITTO or "mosquitto", "-c", str(config)])
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            time.sleep(0.02)
        raise AssertionError("mosquitto does not listen")

    def trust(self) -> list[str]:
        if self.trusted is None:
            return ["--updates-allow-unsigned", "true"]
        return ["--updates-trusted-keys", str(self.trusted)]

    def start_agent(self, name: str) -> None:
        student = name.split("-")[1]
        self._start(
            name,
            [*AGENT, "run", "--students", student, "--device", name, "--deployment", str(self.first),
             "--updates-store", str(self.folder / name), *self.trust(), "--broker-port", str(self.port),
             *self.extra.get(name, [])],
        )  # fmt: skip

    def start_coordinator(self) -> None:
        self._start(
            "coordinator",
            [*COORDINATOR, "run", "--deployment", str(self.first),
             "--updates-store", str(self.folder / "coordinator"), *self.trust(), "--broker-port", str(self.port),
             "--journal", str(self.folder / "journal"), *self.extra.get("coordinator", [])],
        )  # fmt: skip

    def start(self) -> None:
        self.start_broker()
        for name in self.names:
            self.start_agent(name)
        self.start_coordinator()

    def restart(self, name: str) -> None:
        {"broker": self.start_broker, "coordinator": self.start_coordinator}.get(name, lambda: self.start_agent(name))()

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        self.processes[name].send_signal(number)
        self.processes[name].wait()

    def command(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*COORDINATOR, *words, "--broker-port", str(self.port)],
            capture_output=True, text=True, timeout=timeout, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def stop(self) -> None:
        for name in sorted(self.processes, key=lambda name: name == "broker"):
            process = self.processes[name]
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            if process.poll() is None:
                process.kill()
                process.wait()

    def _start(self, name: str, command: list[str]) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)


class Observer:
    """Sees every retained message of the site."""

    def __init__(self, fleet: Fleet, site: str = "home") -> None:
        self._fleet, port = fleet, fleet.port
        self.topics = SiteTopics(site)
        self.seen: dict[str, bytes] = {}
        self.history: list[tuple[str, bytes]] = []
        self.link = MqttLink(BrokerSettings(port=port), f"observer-{os.getpid()}-{port}", [
            (f"{self.topics.root}/node/#", 1), (f"{self.topics.root}/coordinator/#", 1),
            (f"{self.topics.root}/deployment/#", 1),
        ])  # fmt: skip
        OPEN.append(self.close)

    def wait(self, what: str, true: Callable[["Observer"], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not true(self):
            assert time.monotonic() < deadline, f"{what}: {self.seen}"
            for name, process in self._fleet.processes.items():
                assert process.poll() is None, f"{what}: {name} ended: {self._fleet.log(name)[-2000:]}"
            self.step()

    def step(self) -> None:
        for event in self.link.poll(0.05):
            if isinstance(event, Message):
                topic = event.topic[len(self.topics.root) + 1 :]
                self.seen[topic] = event.payload
                self.history.append((topic, event.payload))

    def saw(self, topic: str, **fields: object) -> bool:
        """Whether a message with these fields came, however briefly it held."""
        return any(
            fields.items() <= json.loads(payload).items() for said, payload in self.history if said == topic and payload
        )

    def json(self, topic: str) -> dict:
        return json.loads(self.seen.get(topic) or b"{}")

    def close(self) -> None:
        self.link.close()


@dataclass
class Site:
    """Keys, deployments on disk and a running fleet, for one test module."""

    folder: Path
    key: SigningKey = field(default_factory=SigningKey.generate)
    pad_bytes: int = 0
    folders: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trusted, self.key_file = self.folder / "trusted", self.folder / "release.key"
        self.trusted.write_text(self.key.public("release").to_line() + "\n")
        self.key_file.write_bytes(self.key.to_pem())
        self.key_file.chmod(0o600)
        self.first = self.bundle(1)
        self.fleet = Fleet(self.folder / "site", self.folders[0], self.trusted)

    def bundle(self, number: int, key: SigningKey | None = None, **changes: object) -> Bundle:
        made = make_version(number, key or self.key, self.pad_bytes, **changes)
        self.folders.append(write_directory(made, self.folder / made.id))
        (self.folder / f"{number}.nonn").write_bytes(made.to_bytes())
        return made

    def deploy(self, number: int, *more: str) -> subprocess.CompletedProcess:
        return self.fleet.command("deploy", str(self.folder / f"{number}.nonn"), "--wait", *more)

    def check(self, traffic: Traffic) -> None:
        """No frame lost, answered twice or mixed."""
        assert traffic.lost == []
        assert traffic.repeated == [], [traffic.answers[key] for key in traffic.repeated]
        answered = [folder for folder in self.folders if folder.name in traffic.deployments()]
        assert traffic.mixed(OfflineAnswers(answered)) == []


def all_run(fleet: Fleet, deployment: str) -> Callable[[Observer], bool]:
    """Every device is online and answers with `deployment`, and so does the coordinator."""

    def true(observer: Observer) -> bool:
        coordinator = observer.json("coordinator/main/rollout")
        return coordinator.get("active") == deployment and all(
            observer.json(f"node/{name}/state").get("state") == "online"
            and observer.json(f"node/{name}/info").get("deployment") == deployment
            and observer.json(f"node/{name}/update").get("installed") == deployment
            for name in fleet.names
        )

    return true


@contextlib.contextmanager
def running(fleet: Fleet) -> Iterator[Fleet]:
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()
