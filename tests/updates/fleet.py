"""A site on this machine: mosquitto, agents and coordinator as processes, two sources of frames, and what they saw."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.console.exit_codes import UserError
from edge_agent.inference import feature_message
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.bundle import Bundle, make_bundle
from edge_agent.protocol.feature_message import decode_features, encode_features
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.link import Message, Outgoing
from edge_agent.protocol.manifest import Manifest, file_entry
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.prediction_message import PredictionMessage, decode_prediction
from edge_agent.protocol.signature import SigningKey
from edge_agent.protocol.topics import SiteTopics
from edge_agent.student_slot import open_student

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"
ROOT = Path(__file__).parents[2]
AGENT = (sys.executable, "-m", "edge_agent.cli")
COORDINATOR = (sys.executable, "-m", "coordinator.cli")
RESEND_S = 1.5  # a source that got no answer sends its frame again: broker or coordinator were away
GIVE_UP_S = 15.0
OPEN: list[Callable[[], None]] = []  # ends what a failing test leaves running; called after every test


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_version(
    number: int, key: SigningKey | None, pad_bytes: int = 0, head_sign: int = 1, broken: int = -1, **changes: object
) -> Bundle:
    """Another real deployment: float32 students in even versions, int8 in odd ones, a head of its own for each.

    `pad_bytes` of zeros behind the flatbuffer make the files as long as real students'. Student `broken` gives other
    features than its manifest says: it fails its self-test.
    """
    base = open_deployment(TINY).manifest
    files = {entry.file: (TINY / entry.file).read_bytes() for entry in base.files()}
    precision = "float32" if number % 2 == 0 else "int8"
    head = MergeHead.from_bytes(files["head.npz"], base.widths, len(base.classes))
    scale = np.float32(number * head_sign)
    heads = {mask: type(h)(h.weights * scale, h.bias, h.temperature) for mask, h in head.heads.items()}
    files["head.npz"] = MergeHead(head.widths, head.classes, heads, head.mean).to_bytes()
    students = []
    for student in base.students:
        artifact = next(a for a in student.artifacts if a.precision == precision)
        files[artifact.file] += number.to_bytes(4, "little") + bytes(pad_bytes)
        artifact = artifact.model_copy(update=file_entry(Path(artifact.file), files[artifact.file]).model_dump())
        golden = student.golden
        if student.index == broken:
            golden = golden.model_copy(update={"features": tuple(f + 1000 * golden.tolerance for f in golden.features)})
        students.append(student.model_copy(update={"artifacts": (artifact,), "golden": golden}))
    manifest = base.model_copy(
        update={
            "version": number,
            "students": tuple(students),
            "head": file_entry(Path("head.npz"), files["head.npz"]),
            **changes,
        }
    )
    return seal(manifest, files, key)


def seal(manifest: Manifest, files: dict[str, bytes], key: SigningKey | None) -> Bundle:
    content = manifest.to_bytes()
    signatures = (key.sign("manifest", content),) if key is not None else ()
    return make_bundle(content, lambda entry: files[entry.file], signatures)


def write_directory(bundle: Bundle, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(bundle.manifest_bytes)
    for name, content in bundle.files.items():
        (folder / name).write_bytes(content)
    return folder


class OfflineAnswers:
    """What each deployment must answer, computed here with the real interpreter: a mixed answer fits none."""

    def __init__(self, folders: list[Path]) -> None:
        self._parts = {}
        for folder in folders:
            deployment = open_deployment(folder)
            with contextlib.suppress(UserError):  # one that fails its self-test may not answer at all
                self._parts[deployment.id] = self._open(deployment)
        self._known: dict[tuple[str, bytes], dict[int, NDArray[np.float32]]] = {}

    @staticmethod
    def _open(deployment: DeploymentDirectory) -> tuple[list, MergeHead]:
        manifest = deployment.manifest
        slots = [open_student(deployment, i, "auto", "auto", 1) for i in range(len(manifest.students))]
        return slots, MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, len(manifest.classes))

    def fits(self, prediction: PredictionMessage, image: NDArray[np.uint8]) -> bool:
        if prediction.deployment not in self._parts:
            return False
        slots, head = self._parts[prediction.deployment]
        key = (prediction.deployment, image.tobytes())
        if key not in self._known:
            features = {}
            for slot in slots:
                raw = slot.runtime.run(image)
                message = feature_message(0, raw, slot.runtime.quantization, slot.student.codec, 0, 0)
                codec, travelled = slot.student.codec, decode_features(encode_features(message))
                features[slot.student.index] = travelled.with_ranges(codec.channel_ranges, codec.bits).features
            self._known[key] = features
        present = {i: f for i, f in self._known[key].items() if i in prediction.present}
        logits, temperature = head.merge(present)
        expected = probabilities(logits, temperature)
        return bool(np.allclose(expected, np.asarray(prediction.probabilities, np.float32), atol=1e-4))


@dataclass
class Sent:
    image: int
    at_s: float
    first_s: float
    patience_s: float = RESEND_S


@dataclass
class Traffic:
    """Sources that send numbered frames at a steady rate from a thread and keep every answer."""

    port: int
    sources: tuple[str, ...] = ("door", "yard")
    rate: float = 15.0
    resend: bool = True
    site: str = "home"
    answers: dict[tuple[str, int], list[PredictionMessage]] = field(default_factory=dict)
    images: dict[tuple[str, int], int] = field(default_factory=dict)
    round_trips: list[tuple[float, float]] = field(default_factory=list)  # (when sent, seconds)
    resent: int = 0

    def __post_init__(self) -> None:
        generator = np.random.default_rng(11)
        self.pool = [generator.integers(0, 256, (8, 8, 1)).astype(np.uint8) for _ in range(16)]
        self._stop, self._sending = threading.Event(), True
        self._waiting: dict[tuple[str, int], Sent] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Traffic":
        OPEN.append(self.stop)
        self._thread.start()
        return self

    def stop(self) -> None:
        """At once, whatever is under way."""
        self._stop.set()
        self._thread.join()

    def finish(self) -> None:
        """Send nothing new, wait for what is under way."""
        self._sending = False
        deadline = time.monotonic() + GIVE_UP_S
        while self._waiting and time.monotonic() < deadline:
            time.sleep(0.05)
        self.stop()

    @property
    def lost(self) -> list[tuple[str, int]]:
        return [key for key in self.images if key not in self.answers]

    @property
    def repeated(self) -> list[tuple[str, int]]:
        return [key for key, found in self.answers.items() if len({a.model_dump_json() for a in found}) > 1]

    def results(self) -> Counter[str]:
        return Counter(found[0].result for found in self.answers.values())

    def deployments(self) -> Counter[str]:
        return Counter(found[0].deployment for found in self.answers.values())

    def mixed(self, offline: OfflineAnswers) -> list[tuple[str, int]]:
        return [
            key
            for key, found in self.answers.items()
            if any(a.result != "abandoned" and not offline.fits(a, self.pool[self.images[key]]) for a in found)
        ]

    def _run(self) -> None:
        topics = SiteTopics(self.site)
        link = MqttLink(
            BrokerSettings(port=self.port),
            f"traffic-{os.getpid()}-{self.port}",
            [(topics.prediction(source), 1) for source in self.sources],
        )
        number, start = 0, time.monotonic()
        first_id = time.time_ns() // 1_000_000  # grows over restarts of a source, as the protocol asks
        while not self._stop.is_set():
            now = time.monotonic()
            due = start + number / self.rate / len(self.sources)
            if self._sending and link.connected and now >= due:
                if now > due + 0.5:
                    start += now - due  # not a burst after the broker was away
                key = (self.sources[number % len(self.sources)], first_id + number)
                image = number % len(self.pool)
                self.images[key] = image
                self._waiting[key] = Sent(image, now, now)
                self._send(link, topics, key, image)
                number += 1
            for event in link.poll(max(0.0, min(0.02, due - now))):
                if isinstance(event, Message) and not event.retain:
                    self._answered(topics, event)
            if self.resend and link.connected:
                self._send_again(link, topics)
        link.close()

    def _send(self, link: MqttLink, topics: SiteTopics, key: tuple[str, int], image: int) -> None:
        frame = FrameMessage(key[1], time.time_ns() // 1000, self.pool[image])
        link.publish(Outgoing(topics.frame(key[0]), encode_frame(frame)))

    def _send_again(self, link: MqttLink, topics: SiteTopics) -> None:
        now = time.monotonic()
        for key, sent in list(self._waiting.items()):
            if now - sent.at_s > sent.patience_s:
                sent.at_s = now
                sent.patience_s *= 2  # a slow site is not helped by more frames
                self.resent += 1
                self._send(link, topics, key, sent.image)

    def _answered(self, topics: SiteTopics, event: Message) -> None:
        source, leaf = topics.parse_leaf(event.topic, "prediction")
        if leaf:
            return
        prediction = decode_prediction(event.payload)
        key = (source, prediction.frame_id)
        self.answers.setdefault(key, []).append(prediction)
        sent = self._waiting.pop(key, None)
        if sent is not None:
            self.round_trips.append((sent.first_s, time.monotonic() - sent.first_s))


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
        self._start("broker", [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(config)])
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
