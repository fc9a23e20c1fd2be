"""The coordinator's deployments on disk, and what a rollout must remember over its death."""

from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.rollout_record import RolloutRecord
from edge_agent.console.deployment_directory import MANIFEST_FILE, DeploymentDirectory
from edge_agent.console.deployment_store import DeploymentStore
from edge_agent.console.exit_codes import UserError
from edge_agent.console.file_operations import FileOperations
from edge_agent.console.worker import Worker
from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.head import MergeHead
from edge_agent.protocol.manifest import FileEntry
from edge_agent.protocol.update_messages import SignedContent, parse_rollback
from edge_agent.protocol.update_trust import TrustedManifest, TrustMemory, commit


class ShelfRecord(BaseModel):
    """record.json."""

    model_config = ConfigDict(frozen=True)
    active: str = ""
    previous: str = ""  # kept, so that a rollback need not fetch it
    last_rollout: int = 0
    rollout: RolloutRecord | None = None  # under way
    orders: dict[str, SignedContent] = {}  # the rollback order that led, or leads, to a deployment
    memory: TrustMemory = TrustMemory()


class DiskFile:
    """A stored file as the artifact server sends it."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self.size_bytes = size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """A part of it."""
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


class DeploymentShelf:
    """Whole deployments: the active one, the previous one, and the one that comes."""

    def __init__(self, root: Path, files: FileOperations | None = None, budget_bytes: int | None = None) -> None:
        self.disk = DeploymentStore(root, files, budget_bytes)
        self._path = root / "record.json"
        self.record = self._read()
        self._by_hash: dict[str, DiskFile] = {}
        self._versions: dict[str, int] = {}
        self.index(self.disk.manifests())

    def change(self, worker: Worker, done: Callable[[Exception | None], None], **fields: object) -> None:
        """Believe the changed record, and write it in the worker; `done` when it is durable, or with the error."""
        self.record = self.record.model_copy(update=fields)
        content = self.record.model_dump_json(indent=2).encode()
        worker.submit(lambda: self.disk.replace(self._path, content), done)

    def adopt(self, directory: DeploymentDirectory, rollout: int) -> None:
        """Take over a deployment from a local folder, as the first one, in the name of this rollout."""
        manifest = (directory.path / "manifest.json").read_bytes()
        entries = directory.manifest.files()
        self.disk.begin(directory.id, manifest, None, entries)
        for entry, _ in self.disk.missing(directory.id, entries):
            self.disk.add_file(directory.id, entry, directory.read(entry))
        memory = commit(TrustMemory(), TrustedManifest(directory.id, directory.manifest, manifest, None))
        self.record = ShelfRecord(active=directory.id, last_rollout=rollout, memory=memory)
        self.disk.replace(self._path, self.record.model_dump_json(indent=2).encode())
        self.index([directory.id])

    def index(self, deployments: Iterable[str]) -> None:
        """Make the files of these deployments known by their hash."""
        for deployment in deployments:
            if not (self.disk.folder(deployment) / MANIFEST_FILE).is_file():
                continue  # one that is still to come
            directory = self.disk.open(deployment)
            for entry in directory.manifest.files():
                path = directory.path / entry.file
                if path.is_file() and path.stat().st_size == entry.size_bytes:
                    self._by_hash[entry.sha256] = DiskFile(path, entry.size_bytes)

    def find(self, sha256: str) -> DiskFile | None:
        """The stored file with this hash."""
        return self._by_hash.get(sha256)

    def signed_manifest(self, deployment: str) -> SignedContent:
        """The manifest as devices get it; without signatures where it came from a local folder."""
        signed = self.disk.signed(deployment)
        return signed or SignedContent.of((self.disk.folder(deployment) / "manifest.json").read_bytes(), ())

    def kept_manifest(self, order: SignedContent | None) -> SignedContent:
        """The manifest that a rollback order means; ManifestError if it is not here."""
        deployment = parse_rollback(order.raw).deployment if order is not None else ""
        if not self.holds(deployment):
            kept = self.record.previous or "none"
            raise ManifestError(f"deployment {deployment or '(none)'} is not kept here; the previous one is {kept}")
        return self.signed_manifest(deployment)

    def holds(self, deployment: str) -> bool:
        """Whether all of a deployment is here."""
        try:
            entries: list[FileEntry] = self.disk.open(deployment).manifest.files()
        except UserError:
            return False
        return self.disk.holds(deployment, entries)

    def version(self, deployment: str) -> int | None:
        """Version of a stored deployment."""
        if deployment and deployment not in self._versions:
            self._versions[deployment] = self.disk.open(deployment).manifest.version
        return self._versions.get(deployment)

    def drop_others(self, worker: Worker, done: Callable[[Exception | None], None], *deployments: str) -> None:
        """Keep only these."""
        self._by_hash.clear()
        self.index([deployment for deployment in deployments if deployment])
        worker.submit(lambda: self.disk.keep(deployments), done)

    def _read(self) -> ShelfRecord:
        try:
            return ShelfRecord.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return ShelfRecord()
        except (ValidationError, ValueError) as error:
            # Guessing what a fleet runs would be worse than to stop.
            raise UserError(f"{self._path}: {str(error).splitlines()[0]}; restore it, or start a new store") from None


def open_head(directory: DeploymentDirectory) -> MergeHead:
    """The head of a deployment; UserError if it is damaged."""
    manifest = directory.manifest
    try:
        return MergeHead.from_bytes(directory.read(manifest.head), manifest.widths, len(manifest.classes))
    except ManifestError as error:
        raise UserError(f"{directory.path / manifest.head.file}: {error}") from None
