"""Listens to a site without taking part: who is there, what it runs, what it answers, what does not belong."""

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coordinator.roster import Roster
from coordinator.settings import ClientSettings
from coordinator.update_view import UpdateView, decode_update_view
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.link import Connected, Disconnected, Event, Message
from edge_agent.protocol.link_choice import open_link
from edge_agent.protocol.pack import decode_pack
from edge_agent.protocol.prediction_message import PredictionMessage, decode_prediction
from edge_agent.protocol.status import CoordinatorInfo, NodeInfo, NodeState, NodeTelemetry, decode_status
from edge_agent.protocol.topics import SiteTopics

MAX_SOURCES = 256  # names come from the network
RATE_WINDOW_S = 10.0


@dataclass
class SourceTraffic:
    """What one source was answered lately."""

    last: PredictionMessage
    results: Counter[str] = field(default_factory=Counter)
    times_s: deque[float] = field(default_factory=lambda: deque(maxlen=2048))
    totals_ms: deque[float] = field(default_factory=lambda: deque(maxlen=256))

    def answers_per_s(self, now: float) -> float:
        """Mean over the last ten seconds, or since the first answer."""
        recent = [moment for moment in self.times_s if now - moment <= RATE_WINDOW_S]
        return len(recent) / max(1.0, min(RATE_WINDOW_S, now - self.times_s[0])) if recent else 0.0


class FleetListener:
    """A silent client of one site."""

    def __init__(self, settings: ClientSettings, watch_everything: bool = False) -> None:
        self.settings = settings
        self.roster = Roster()
        self.coordinators: dict[str, CoordinatorInfo] = {}
        self.coordinators_online: dict[str, bool] = {}
        self.sources: dict[str, SourceTraffic] = {}
        self.updates: dict[str, UpdateView] = {}
        self.telemetry_at_s: dict[str, float] = {}  # wall clock, to compare with the device's own
        self.misplaced_retained: set[str] = set()
        self.unreadable: Counter[str] = Counter()
        self.trouble = "no answer from the broker"
        self._topics = SiteTopics(settings.site)
        topics = self._topics
        filters = [(topics.node("+", "#"), 1), (topics.coordinator("+", "#"), 1), (topics.prediction("+"), 0)]
        if watch_everything:
            filters = [(f"{topics.root}/#", 0)]
        self._link = open_link(settings.broker, f"nonn-look-{secrets.token_hex(4)}", filters)

    @property
    def connected(self) -> bool:
        """Logged in at the broker."""
        return self._link.connected

    def listen(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Take in what comes, for `seconds` or until `enough` says so."""
        deadline = time.monotonic() + seconds
        while not enough() and time.monotonic() < deadline:
            for event in self._link.poll(min(0.1, max(0.0, deadline - time.monotonic()))):
                self._take(event)

    def require_broker(self, timeout_s: float) -> None:
        """Listen until logged in; UserError (exit code 69) says why not."""
        self.listen(timeout_s, lambda: self.connected)
        if not self.connected:
            where = f"{self.settings.broker.host}:{self.settings.broker.port}"
            trouble = self.trouble.removeprefix(f"{where}: ")
            raise UserError(
                f"no broker at {where} after {timeout_s:g} s: {trouble}; "
                "expected an MQTT broker there, such as mosquitto",
                ExitCode.UNAVAILABLE,
            )

    def close(self) -> None:
        """Leave the broker."""
        self._link.close()

    def _take(self, event: Event) -> None:
        match event:
            case Message():
                try:
                    self._receive(event, self._topics.relative(event.topic))
                except ProtocolError as error:
                    self.unreadable[f"{event.topic}: {error}"[:200]] += 1
            case Disconnected(reason, refused):
                self.trouble = reason
                if refused:
                    raise UserError(f"broker {reason}", ExitCode.UNAVAILABLE)
            case Connected():
                self.trouble = ""

    def _receive(self, message: Message, levels: list[str]) -> None:
        payload = message.payload
        match levels:
            case ["node", device, leaf]:
                self._receive_node(device, leaf, message)
            case ["coordinator", name, "info"] if payload:
                self.coordinators[name] = decode_status(CoordinatorInfo, payload)
            case ["coordinator", name, "state"] if payload:
                self.coordinators_online[name] = decode_status(NodeState, payload).state == "online"
            case ["prediction", source] if not message.retain:
                for one in decode_pack(payload):
                    self._count(source, decode_prediction(one))
            case ["frame" | "feature" | "prediction" | "chunk", *_] if message.retain and payload:
                self.misplaced_retained.add(message.topic)
            case _:
                pass

    def _receive_node(self, device: str, leaf: str, message: Message) -> None:
        if not message.payload:
            self.roster.forget(device)
        elif leaf == "state":
            self.roster.state(device, decode_status(NodeState, message.payload))
        elif leaf == "info":
            self.roster.info(device, decode_status(NodeInfo, message.payload))
        elif leaf == "telemetry":
            self.roster.telemetry(device, decode_status(NodeTelemetry, message.payload))
            if not message.retain:
                self.telemetry_at_s[device] = time.time()
        elif leaf == "update" and (len(self.updates) < MAX_SOURCES or device in self.updates):
            self.updates[device] = decode_update_view(message.payload)

    def _count(self, source: str, prediction: PredictionMessage) -> None:
        traffic = self.sources.get(source)
        if traffic is None:
            if len(self.sources) >= MAX_SOURCES:
                return
            traffic = self.sources[source] = SourceTraffic(prediction)
        traffic.last = prediction
        traffic.results[prediction.result] += 1
        traffic.times_s.append(time.monotonic())
        traffic.totals_ms.append(prediction.latency_ms.total)

    def in_the_open(self) -> list[str]:
        """Whose messages travel unencrypted over the network, a line each."""
        broker = self.settings.broker
        lines = []
        if broker.is_exposed:
            lines.append(f"plain MQTT to {broker.host}: whoever is on the network can read and answer")
        names = [name for name, info in self.coordinators.items() if info.insecure]
        names += [node.name for node in self.roster.devices if node.online and node.info and node.info.insecure]
        if names:
            lines.append(f"{', '.join(sorted(names))}: without TLS over the network")
        return lines

    def certificates(self) -> dict[str, datetime]:
        """When whose certificate runs out, as far as devices and coordinators say."""
        infos: dict[str, NodeInfo | CoordinatorInfo] = dict(self.coordinators)
        infos |= {device.name: device.info for device in self.roster.devices if device.info}
        return {name: info.certificate_until for name, info in infos.items() if info.certificate_until is not None}

    def as_json(self) -> dict[str, Any]:
        """Everything that is known, for scripts."""
        now = time.monotonic()
        return {
            "site": self.settings.site,
            "insecure": self.in_the_open(),
            "coordinators": {
                name: {"online": self.coordinators_online.get(name, False), **info.model_dump(mode="json")}
                for name, info in sorted(self.coordinators.items())
            },
            "devices": {
                device.name: {
                    "online": device.online,
                    "info": device.info.model_dump(mode="json", exclude_none=True) if device.info else None,
                    "telemetry": device.telemetry.model_dump(mode="json") if device.telemetry else None,
                    "update": self.updates[device.name].model_dump() if device.name in self.updates else None,
                }
                for device in self.roster.devices
            },
            "sources": {
                name: {"answers_per_s": round(traffic.answers_per_s(now), 2), "last": traffic.last.model_dump()}
                for name, traffic in sorted(self.sources.items())
            },
        }
