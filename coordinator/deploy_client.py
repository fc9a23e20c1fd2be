"""Brings a bundle to a site, or the site back, from anywhere that reaches the broker: commands and dashboard use it.

    client = DeployClient(settings, bundle)              # `settings`: ClientSettings; for a way back without a bundle
    try:
        client.wait_for_status(10.0)                     # what runs now; UserError: no broker, no such coordinator
        target = client.deploy(CanaryRules(("pi-7",)))   # or client.roll_back(client.rollback_order(key))
        last = client.follow(target, FINAL, show)        # serves the files; show(RolloutStatus) several times a second
    finally:
        client.close()

Every step blocks, so a server runs it in a thread of its own, and leaves by an exception out of `show`. One client
serves one request. The files travel from here to the coordinator: while it says `fetching` the client must live.
Whatever the site or the coordinator does not like is a UserError of one line, or a status `failed` with `error`.
A bundle comes from `edge_agent.protocol.bundle.parse_bundle(content)` or `read_bundle(path)`; an order that was
signed elsewhere (`nonn-coordinator rollback --key FILE --order-out FILE`) from `parse_order(content)`.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pydantic import ValidationError

from coordinator.artifact_server import ArtifactServer
from coordinator.settings import ClientSettings
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.bundle import Bundle
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.link import Disconnected, Message, Outgoing
from edge_agent.protocol.link_choice import open_link
from edge_agent.protocol.signature import SigningKey
from edge_agent.protocol.status import NodeState, decode_status
from edge_agent.protocol.topics import SiteTopics
from edge_agent.protocol.update_messages import (
    DeployReply,
    DeployRequest,
    NodeUpdate,
    RollbackOrder,
    RolloutPhase,
    RolloutStatus,
    SignedContent,
    decode_update,
    parse_rollback,
)
from edge_agent.protocol.update_topics import UpdateTopics

# To the coordinator, not past it: it is not the devices' link that this fills.
UPLOAD_BYTES_PER_S = 8_000_000
REPLY_PATIENCE_S = 10.0
ORDER_LIFETIME_S = 24 * 3600  # a device that is off for longer gets the rollback when the order is signed again
FINAL: tuple[RolloutPhase, ...] = ("complete", "failed")
ANNOUNCED: tuple[RolloutPhase, ...] = (*FINAL, "switching")  # the devices know their frame; the trial goes on


@dataclass(frozen=True, slots=True)
class CanaryRules:
    """Devices that try the deployment in shadow first, and when it is good enough for the others; none: no trial."""

    devices: tuple[str, ...] = ()
    frames: int = 100
    min_agreement: float = 0.9  # share of frames with the same class as now
    max_latency_ratio: float = 1.5  # p95 of the new students over the old


NO_CANARY = CanaryRules()


def parse_order(content: bytes) -> SignedContent:
    """Read a rollback order from a file; UserError if it is none. Whether it is signed well, the coordinator checks."""
    try:
        order = SignedContent.model_validate_json(content)
        parse_rollback(order.raw)
    except (ValidationError, ProtocolError):
        raise UserError("not a rollback order; expected a file of nonn-coordinator rollback --order-out") from None
    return order


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
        self._settings, self._bundle = settings, bundle
        site = SiteTopics(settings.site)
        self._topics = UpdateTopics(site)
        self._state_topic = site.coordinator(settings.coordinator, "state")
        self._online = False  # what a coordinator said of a rollout stays at the broker when it is gone
        self.name = f"deploy-{secrets.token_hex(4)}"
        self.status: RolloutStatus | None = None
        self.devices: dict[str, NodeUpdate] = {}
        self._request: DeployRequest
        self._replies: dict[str, DeployReply] = {}
        self._last_trouble = "no answer"
        self._link = open_link(
            settings.broker,
            f"nonn-{settings.site}-{self.name}",
            [
                (self._topics.rollout(settings.coordinator), 1),
                (self._state_topic, 1),
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
        while self.status is None or not self._online:
            if time.monotonic() > deadline:
                where = f"{self._settings.broker.host}:{self._settings.broker.port}"
                if not self._link.connected:
                    trouble = self._last_trouble.removeprefix(f"{where}: ")
                    raise UserError(f"no broker at {where}: {trouble}", ExitCode.UNAVAILABLE)
                name = f"coordinator {self._settings.coordinator!r} of site {self._settings.site!r}"
                trouble = "takes no updates; expected one with --updates-store and --updates-trusted-keys"
                if not self._online:
                    trouble = "is not online; expected a running nonn-coordinator"
                raise UserError(f"{name} {trouble}", ExitCode.UNAVAILABLE)
            self.step(0.05)
        return self.status

    def deploy(self, canary: CanaryRules = NO_CANARY, timeout_s: float = 300.0) -> str:
        """Ask the coordinator to bring the bundle to the site; its deployment id once that has begun.

        `timeout_s`: the longest that the site may wait for ready devices, and for the canaries' frames.
        """
        if self._bundle is None:
            raise ValueError("this client was made without a bundle")
        self._ask(
            DeployRequest(
                transaction=self.name, server=self.name, manifest=self._bundle.signed_manifest,
                canaries=canary.devices, canary_frames=canary.frames, min_agreement=canary.min_agreement,
                max_latency_ratio=canary.max_latency_ratio, timeout_s=timeout_s,
            )
        )  # fmt: skip
        return self._bundle.id

    def rollback_order(self, key: SigningKey | None, to: str | None = None) -> SignedContent:
        """An order to go back to `to`, else to the previous deployment; signed, unless the site takes unsigned ones."""
        status = self.status or self.wait_for_status(REPLY_PATIENCE_S)
        target = to or status.previous
        if target is None:
            raise UserError("the coordinator keeps no previous deployment; deploy a bundle of it with a new version")
        now = time.time()
        order = RollbackOrder(
            deployment=target, undoes_version=max(status.active_version, status.previous_version or 0),
            serial=int(now * 1e6), expires=int(now + ORDER_LIFETIME_S),
        ).to_bytes()  # fmt: skip
        return SignedContent.of(order, (key.sign("rollback", order),) if key is not None else ())

    def roll_back(self, order: SignedContent, timeout_s: float = 300.0) -> str:
        """Send an order, signed here or somewhere else; the deployment it leads to once that has begun."""
        try:
            target = parse_rollback(order.raw).deployment
        except ProtocolError as error:
            raise UserError(str(error)) from None
        self._ask(DeployRequest(transaction=self.name, server=self.name, rollback=order, timeout_s=timeout_s))
        return target

    def _ask(self, request: DeployRequest) -> None:
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
        self, target: str, until: Collection[RolloutPhase], show: Callable[[RolloutStatus], None]
    ) -> RolloutStatus:
        """Serve the files and show every status until one about `target` is in a phase of `until`; returns it."""
        while True:
            self.step(0.05)
            status = self.status
            if status is not None and status.phase == "idle":  # the coordinator was started again
                if status.active == target:
                    final = status.model_copy(update={"phase": "complete", "target": target})
                    show(final)
                    return final
                self._ask(self._request)  # it had not fetched everything; it goes on from what came
                continue
            if status is not None and status.target == target:
                show(status)
                if status.phase in until:
                    return status
            elif status is not None and status.phase == "failed":
                show(status)
                return status

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
        with contextlib.suppress(ProtocolError):  # somebody's garbage: the next good message counts
            self._take(message)

    def _take(self, message: Message) -> None:
        if self._server.receive(message) or not message.payload:
            return
        if message.topic == self._topics.rollout(self._settings.coordinator):
            self.status = decode_update(RolloutStatus, message.payload)
        elif message.topic == self._state_topic:
            self._online = decode_status(NodeState, message.payload).state == "online"
        elif message.topic == self._topics.deploy_reply:
            reply = decode_update(DeployReply, message.payload)
            self._replies[reply.transaction] = reply
        elif message.topic.endswith("/update"):
            self.devices[message.topic.split("/")[-2]] = decode_update(NodeUpdate, message.payload)
