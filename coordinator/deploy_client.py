"""Brings a bundle to a site from anywhere: asks the coordinator, serves it the files, watches the rollout."""

import secrets
import time
from collections.abc import Callable

from coordinator.artifact_server import ArtifactServer
from coordinator.settings import ClientSettings
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.bundle import Bundle
from edge_agent.protocol.link import Disconnected, Message, Outgoing
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.topics import SiteTopics
from edge_agent.protocol.update_messages import (
    DeployReply,
    DeployRequest,
    NodeUpdate,
    RolloutStatus,
    decode_update,
)
from edge_agent.protocol.update_topics import UpdateTopics

# To the coordinator, not past it: it is not the devices' link that this fills.
UPLOAD_BYTES_PER_S = 8_000_000
REPLY_PATIENCE_S = 10.0
FINAL = ("complete", "failed")


class MemoryFile:
    """A file of a bundle that is sent."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)

    def read(self, offset: int, length: int) -> bytes:
        """A part of it."""
        return self._content[offset : offset + length]


class DeployClient:
    """One connection for one request. `status` and `devices` are what the site says of itself."""

    def __init__(self, settings: ClientSettings, bundle: Bundle | None = None) -> None:
        self._settings = settings
        site = SiteTopics(settings.site)
        self._topics = UpdateTopics(site)
        self.name = f"deploy-{secrets.token_hex(4)}"
        self.status: RolloutStatus | None = None
        self.devices: dict[str, NodeUpdate] = {}
        self._request: DeployRequest
        self._replies: dict[str, DeployReply] = {}
        self._last_trouble = "no answer"
        self._link = MqttLink(
            settings.broker,
            f"nonn-{settings.site}-{self.name}",
            [
                (self._topics.rollout(settings.coordinator), 1),
                (self._topics.node("+"), 1),
                (self._topics.deploy_reply, 1),
                (self._topics.chunk_requests(self.name), 0),
            ],
        )
        files = {} if bundle is None else {e.sha256: MemoryFile(bundle.files[e.file]) for e in bundle.manifest.files()}
        self._server = ArtifactServer(self._link, self._topics, self.name, files.get, UPLOAD_BYTES_PER_S)

    def wait_for_status(self, timeout_s: float) -> RolloutStatus:
        """What the coordinator runs; UserError (69) if it does not say."""
        deadline = time.monotonic() + timeout_s
        while self.status is None:
            if time.monotonic() > deadline:
                where = f"{self._settings.broker.host}:{self._settings.broker.port}"
                if not self._link.connected:
                    raise UserError(f"no broker at {where}: {self._last_trouble}", ExitCode.UNAVAILABLE)
                raise UserError(
                    f"coordinator {self._settings.coordinator!r} of site {self._settings.site!r} takes no updates; "
                    "expected one that runs with --updates-store",
                    ExitCode.UNAVAILABLE,
                )
            self.step(0.05)
        return self.status

    def request(self, request: DeployRequest) -> None:
        """Send a request and wait until it is taken up; UserError says why not."""
        self._request = request
        deadline = time.monotonic() + REPLY_PATIENCE_S
        self._link.publish(Outgoing(self._topics.deploy_request, request.encode(), qos=1))
        while (reply := self._replies.pop(request.transaction, None)) is None:
            if time.monotonic() > deadline:
                raise UserError(f"no reply from the coordinator in {REPLY_PATIENCE_S:g} s", ExitCode.UNAVAILABLE)
            self.step(0.05)
        if reply.status == "error":
            raise UserError(f"the coordinator refused: {reply.error}")
        self.status = None  # what it said so far was about the last rollout

    def follow(
        self, target: str, until: Callable[[RolloutStatus], bool], show: Callable[[RolloutStatus], None]
    ) -> None:
        """Serve and watch until `until` holds of a status about `target`."""
        while True:
            self.step(0.05)
            status = self.status
            if status is not None and status.phase == "idle":  # the coordinator was started again
                if status.active == target:
                    show(status.model_copy(update={"phase": "complete", "target": target}))
                    return
                self.request(self._request)  # it had not fetched everything; it goes on from what came
                continue
            if status is not None and status.target == target:
                show(status)
                if until(status):
                    return
            elif status is not None and status.phase == "failed":
                show(status)
                return

    def step(self, longest_wait_s: float) -> None:
        """One round of network work."""
        for event in self._link.poll(longest_wait_s):
            match event:
                case Message():
                    self._receive(event)
                case Disconnected(reason, refused):
                    self._last_trouble = reason
                    if refused:
                        raise UserError(f"broker {reason}", ExitCode.UNAVAILABLE)
                case _:
                    pass
        self._server.tick(time.monotonic())

    def close(self) -> None:
        """Leave the broker."""
        self._link.close()

    def _receive(self, message: Message) -> None:
        if self._server.receive(message) or not message.payload:
            return
        if message.topic == self._topics.rollout(self._settings.coordinator):
            self.status = decode_update(RolloutStatus, message.payload)
        elif message.topic == self._topics.deploy_reply:
            reply = decode_update(DeployReply, message.payload)
            self._replies[reply.transaction] = reply
        elif message.topic.endswith("/update"):
            self.devices[message.topic.split("/")[-2]] = decode_update(NodeUpdate, message.payload)
