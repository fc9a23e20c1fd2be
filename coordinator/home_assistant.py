"""Announces sources and devices to Home Assistant, and takes the announcements back."""

import argparse
import io
import os
import secrets
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coordinator.extension import CoordinatorExtension
from coordinator.feature_merger import FrameMerged
from coordinator.home_assistant_entities import Config, Site, device_entities, encode, source_entities
from coordinator.roster import Device, Roster
from coordinator.source_names import is_passing
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.settings import add_setting_flags, load_settings
from edge_agent.console.worker import Worker
from edge_agent.protocol.frame_message import FrameMessage
from edge_agent.protocol.link import Disconnected, Link, Message, Outgoing
from edge_agent.protocol.link_choice import open_link
from edge_agent.protocol.prediction_message import PredictionMessage
from edge_agent.protocol.topics import SiteTopics

LOOK_S = 1.0  # devices come and go slowly
MAX_SOURCES = 64
READINGS = ("temperature_c", "power_w", "student_ms_p50", "throttled")


class HomeAssistant(CoordinatorExtension):
    """Publishes retained configurations, once for each entity, and pictures now and then."""

    def __init__(
        self, site: Site, roster: Roster, publish: Callable[[Outgoing], bool], picture_s: float, worker: Worker
    ) -> None:
        self._site, self._roster, self._publish, self._picture_s = site, roster, publish, picture_s
        self._worker = worker
        self._announced: dict[str, Config] = {}
        self._of_device: dict[str, set[str]] = {}
        self._next_picture_s: dict[str, float] = {}
        self._frames: dict[str, FrameMessage] = {}
        self._next_look_s = 0.0

    def connected(self) -> None:
        """Announce again: the broker may have forgotten."""
        for topic, config in self._announced.items():
            self._publish(Outgoing(topic, encode(config), qos=1, retain=True))

    def on_frame(self, source: str, frame: FrameMessage, now: float) -> None:
        """Keep the frame whose answer will bring its picture along."""
        if now >= self._next_picture_s.get(source, 0.0) and not is_passing(source):
            if source not in self._next_picture_s and len(self._next_picture_s) >= MAX_SOURCES:
                return
            self._next_picture_s[source] = now + self._picture_s
            self._frames[source] = frame

    def on_prediction(self, prediction: PredictionMessage, merged: FrameMerged | None, now: float) -> None:  # noqa: ARG002
        """Announce a new source, and publish its picture."""
        frame = self._frames.get(prediction.source)
        if frame is None or frame.frame_id != prediction.frame_id:
            return
        del self._frames[prediction.source]
        self._announce(source_entities(self._site, prediction.source))
        if self._worker.pending < MAX_SOURCES:
            topic, image = self._site.picture_topic(prediction.source), frame.image
            self._worker.submit(lambda: encode_png(image), lambda content: self._send_picture(topic, content))

    def tick(self, now: float) -> None:
        """Announce new devices and readings, take back devices that were purged."""
        if self._worker.pending:
            self._worker.deliver()
        if now < self._next_look_s:
            return
        self._next_look_s = now + LOOK_S
        devices = self._roster.devices
        for device in devices:
            if device.info is not None:
                found = self._entities(device)
                self._announce(found)
                self._of_device.setdefault(device.name, set()).update(found)
        for name in self._of_device.keys() - {device.name for device in devices}:
            for topic in self._of_device.pop(name):
                self._announced.pop(topic, None)
                self._publish(Outgoing(topic, b"", qos=1, retain=True))

    def _entities(self, device: Device) -> dict[str, Config]:
        seen = device.telemetry
        readings = frozenset(key for key in READINGS if seen is not None and getattr(seen, key) is not None)
        if seen is not None and seen.power_source == "estimated":
            readings -= {"power_w"}  # of the agent alone: nobody should add it up with sockets that are measured
        version, machine = (device.info.agent_version, device.info.machine) if device.info else ("", "")
        return device_entities(self._site, device.name, version, machine, readings)

    def _announce(self, entities: dict[str, Config]) -> None:
        for topic, config in entities.items():
            if self._announced.get(topic) != config:
                self._announced[topic] = config
                self._publish(Outgoing(topic, encode(config), qos=1, retain=True))

    def _send_picture(self, topic: str, content: object) -> None:
        if isinstance(content, bytes):
            self._publish(Outgoing(topic, content))


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A PNG file of an image: (height, width, 1 or 3), uint8."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def add_command(commands: Any) -> None:
    """Add `home-assistant`."""
    from coordinator.settings import ClientSettings

    command = commands.add_parser(
        "home-assistant",
        help="list or remove what was announced to Home Assistant",
        description="List what this site has announced to Home Assistant; --remove takes it back.",
    )
    command.add_argument("--remove", action="store_true", help="remove it")
    command.add_argument("--only", metavar="NAME", help="only this source or device")
    command.add_argument("--prefix", default="homeassistant", help="discovery prefix [homeassistant]")
    add_setting_flags(command, ClientSettings)
    command.set_defaults(job=_command)


def _command(arguments: argparse.Namespace) -> int:
    from coordinator.settings import ClientSettings

    settings = load_settings(ClientSettings, arguments, os.environ)
    link = open_link(settings.broker, f"nonn-tidy-{secrets.token_hex(4)}", [(f"{arguments.prefix}/+/+/+/config", 1)])
    try:
        found = sorted(_announced(link, arguments.prefix, SiteTopics(settings.site), arguments.only))
        for topic in found:
            print(topic)
            if arguments.remove:
                link.publish(Outgoing(topic, b"", qos=1, retain=True))
    finally:
        link.close()
    print(f"{len(found)} {'removed' if arguments.remove else 'announced'}")
    return ExitCode.OK


def _announced(link: Link, prefix: str, topics: SiteTopics, only: str | None) -> set[str]:
    """Topics of this site's configurations that are retained."""
    deadline = time.monotonic() + 5.0
    found: set[str] = set()
    trouble, settling = "no answer", False
    things = [f"nonn-{topics.site}-{kind}-{only}" for kind in ("source", "device")]
    while time.monotonic() < deadline:
        for event in link.poll(0.1):
            if isinstance(event, Disconnected):
                trouble = event.reason
            elif isinstance(event, Message) and event.retain and event.payload:
                thing = event.topic.split("/")[-3] if event.topic.startswith(prefix) else ""
                mine = thing in things if only else thing.startswith(f"nonn-{topics.site}-")
                if mine:
                    found.add(event.topic)
        if link.connected and not settling:
            # Retained messages come at once, those of a thousand entities within a second.
            settling, deadline = True, time.monotonic() + 1.0
    if not link.connected:
        raise UserError(f"no broker: {trouble}", ExitCode.UNAVAILABLE)
    return found
