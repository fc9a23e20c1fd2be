"""Whether a program takes up a manifest: signature, expiry, version, rollback. Pure; docs/updates.md."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.manifest import Manifest, deployment_id, parse_manifest
from edge_agent.protocol.signature import TrustedKeys
from edge_agent.protocol.update_messages import RollbackOrder, SignedContent, parse_rollback


@dataclass(frozen=True, slots=True)
class TrustMemory:
    """What must never be forgotten, or an old message could bring an old deployment back."""

    floor_version: int = 0  # the highest version that was committed here
    floor_id: str = ""
    undone_version: int = 0  # versions up to here were rolled back
    order_serial: int = 0  # of the last rollback order taken up
    order_deployment: str = ""


@dataclass(frozen=True, slots=True)
class TrustedManifest:
    """A manifest that may be installed, and the order that allows it to be an older one."""

    id: str
    manifest: Manifest
    content: bytes
    order: RollbackOrder | None


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """`keys` None: unsigned manifests are taken; only for brokers on loopback. `program_version`: ours."""

    keys: TrustedKeys | None
    program_version: str

    def judge(
        self,
        signed: SignedContent,
        rollback: SignedContent | None,
        memory: TrustMemory,
        installed: Mapping[str, bytes],
        active: str,
        now: datetime,
    ) -> TrustedManifest:
        """The manifest if it may be installed here; ManifestError says why not.

        `installed`: manifests on the disk by id, which were judged before or came with the device; `active`: answers.
        """
        content = signed.raw
        target = deployment_id(content)
        is_known = installed.get(target) == content
        if self.keys is not None and not is_known:
            self.keys.verify("manifest", content, signed.signatures)
        manifest = parse_manifest(content)  # after the signature: nothing of a stranger's is interpreted
        if is_known and target == active and rollback is None:
            return TrustedManifest(target, manifest, content, None)
        order = self._order(rollback, target, memory, now)
        if order is None and not is_known:
            _check_fresh(manifest, now)
        if order is None:
            _check_version(manifest, target, memory)
        if version_key(self.program_version) < version_key(manifest.minimum_agent_version):
            needed = manifest.minimum_agent_version
            raise ManifestError(f"manifest: needs version {needed} of NoNN Edge, this is {self.program_version}")
        return TrustedManifest(target, manifest, content, order)

    def _order(
        self, rollback: SignedContent | None, target: str, memory: TrustMemory, now: datetime
    ) -> RollbackOrder | None:
        if rollback is None:
            return None
        content = rollback.raw
        if self.keys is not None:
            self.keys.verify("rollback", content, rollback.signatures)
        order = parse_rollback(content)
        if order.deployment != target:
            raise ManifestError(f"rollback order: is for deployment {order.deployment}, not {target}")
        if (order.serial, target) == (memory.order_serial, memory.order_deployment):
            return order  # taken up before, and still what is wanted: a reboot, a repeated message
        if order.serial <= memory.order_serial:
            raise ManifestError("rollback order: older than the last one that was taken up here")
        if order.expires < now.timestamp():
            raise ManifestError("rollback order: expired")
        if order.undoes_version < memory.floor_version:
            raise ManifestError(
                f"rollback order: undoes versions up to {order.undoes_version}; here is {memory.floor_version}"
            )
        return order


def commit(memory: TrustMemory, trusted: TrustedManifest) -> TrustMemory:
    """What to remember once a deployment answers for good."""
    order, version = trusted.order, trusted.manifest.version
    if order is not None:
        return replace(
            memory,
            order_serial=order.serial,
            order_deployment=order.deployment,
            undone_version=max(memory.undone_version, order.undoes_version),
        )
    if version > memory.floor_version:
        # A newer deployment ends the rollback: its order must not lead back once more.
        memory = replace(memory, floor_version=version, floor_id=trusted.id, order_deployment="")
    return memory


def version_key(version: str) -> tuple[int, ...]:
    """Numbers of a version, for comparison.

    >>> version_key("0.10.1") > version_key("0.9")
    True
    """
    return tuple(int("".join(c for c in part if c.isdigit()) or "0") for part in version.split(".")[:3])


def _check_fresh(manifest: Manifest, now: datetime) -> None:
    expires = manifest.expires
    if expires is not None and expires < now.replace(tzinfo=now.tzinfo if expires.tzinfo else None):
        raise ManifestError(f"manifest: expired on {expires:%Y-%m-%d}; expected a newly signed one")


def _check_version(manifest: Manifest, target: str, memory: TrustMemory) -> None:
    same_again = target == memory.floor_id and memory.undone_version < manifest.version
    reached = max(memory.floor_version, memory.undone_version)
    if manifest.version <= reached and not same_again:
        raise ManifestError(
            f"manifest: version {manifest.version} after {reached} is a downgrade; expected {reached + 1} or more, "
            "or a signed rollback order to go back"
        )
