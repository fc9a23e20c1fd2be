"""The device's deployments: one that answers, the last good one beside it, and what must survive a reboot."""

import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.console.deployment_store import DeploymentStore
from edge_agent.console.file_operations import FileOperations
from edge_agent.protocol.manifest import FileEntry
from edge_agent.protocol.update_trust import TrustMemory

# Starts in a row without proof of health: one crash may be a power cut, three are the student's fault.
MAX_STARTS = 3
MAX_OPENINGS = 2  # times that the agent may die while it opens a deployment for the first time
_log = logging.getLogger("store")


class Refused(BaseModel):
    """A deployment that failed here, and in which rollout: only a new rollout may try it again."""

    model_config = ConfigDict(frozen=True)
    rollout: int
    reason: str


class StoreRecord(BaseModel):
    """record.json."""

    model_config = ConfigDict(frozen=True)
    active: str = ""  # answers frames
    previous: str = ""  # answered before, or "" when it is gone
    rollout: int = 0  # that made `active` active
    proven: bool = True  # `active` has shown that it runs here
    starts: int = 0  # of the agent with an `active` that is not proven
    opening: str = ""  # a deployment that is being opened for the first time
    openings: int = 0
    opening_rollout: int = 0
    refused: dict[str, Refused] = {}
    memory: TrustMemory = TrustMemory()


class ModelStore:
    """A/B: `active` and one more, the previous one or the next. Every change of the record is atomic."""

    def __init__(self, root: Path, files: FileOperations | None = None, budget_bytes: int | None = None) -> None:
        self.disk = DeploymentStore(root, files, budget_bytes)
        self._path = root / "record.json"
        self.record = self._read()

    @property
    def active(self) -> DeploymentDirectory | None:
        """The deployment that answers frames, or None on a fresh device."""
        return self.disk.open(self.record.active) if self.record.active else None

    def count_start(self) -> str:
        """Call when the agent starts: falls back when it started too often. Returns what happened, or ''."""
        record = self.record
        if record.openings >= MAX_OPENINGS:
            reason = f"the agent died {record.openings} times while it opened and tested this deployment"
            self.refuse(record.opening, record.opening_rollout, reason)
            self._change(opening="", openings=0)
            return reason
        if not record.active or record.proven:
            return ""
        if record.starts >= MAX_STARTS and record.previous:
            return self.fall_back(f"the agent ended {record.starts} times before this deployment had proven itself")
        self._change(starts=record.starts + 1)
        return ""

    def fall_back(self, reason: str) -> str:
        """Return to the last good deployment, and remember why."""
        record = self.record
        if record.previous:
            refused = {**record.refused, record.active: Refused(rollout=record.rollout, reason=reason)}
            self._change(active=record.previous, previous="", proven=True, starts=0, refused=refused)
        return reason

    def lose(self) -> None:
        """The active deployment can't be opened any more: back to the last good one, or to none until it is fetched."""
        good = self.record.previous
        self._change(active=good, previous="", proven=True, starts=0)
        self.disk.keep({good})

    def begin(self, deployment: str) -> None:
        """What is neither active, previous nor next is dropped."""
        self.disk.keep({self.record.active, self.record.previous, deployment})

    def make_room(self, deployment: str) -> None:
        """The disk is too small for three: the way back is given up for the way on."""
        if self.record.previous not in ("", deployment):
            self._change(previous="")
        self.begin(deployment)

    def opening(self, deployment: str, rollout: int) -> None:
        """About to load `deployment` for the first time: should the agent die of it, the next start knows."""
        same = self.record.opening == deployment
        self._change(opening=deployment, openings=self.record.openings + 1 if same else 1, opening_rollout=rollout)

    def opened(self) -> None:
        """The deployment was loaded and tested, or refused without harm."""
        self._change(opening="", openings=0)

    def activate(self, deployment: str, rollout: int) -> None:
        """`deployment` answers from now on; what answered before is kept."""
        if deployment == self.record.active:
            return
        self._change(
            active=deployment, previous=self.record.active, rollout=rollout,
            # A first deployment has nothing to fall back to, and what answered before has proven itself.
            proven=not self.record.active or deployment == self.record.previous, starts=1,
        )  # fmt: skip

    def prove(self) -> None:
        """The active deployment has run long enough to be called good."""
        if not self.record.proven:
            self._change(proven=True, starts=0)

    def refuse(self, deployment: str, rollout: int, reason: str) -> None:
        """Remember that `deployment` failed here; the last few are enough."""
        last = dict(list(self.record.refused.items())[-7:])
        self._change(refused={**last, deployment: Refused(rollout=rollout, reason=reason)})

    def remember(self, memory: TrustMemory) -> None:
        """What was committed; never goes back."""
        if memory != self.record.memory:
            self._change(memory=memory)

    def adopt(self, directory: DeploymentDirectory, entries: Iterable[FileEntry]) -> None:
        """Take over a deployment from a local folder, as the first one of a fresh device."""
        wanted = list(entries)
        manifest = (directory.path / "manifest.json").read_bytes()
        self.disk.begin(directory.id, manifest, None, wanted)
        for entry, _ in self.disk.missing(directory.id, wanted):
            self.disk.add_file(directory.id, entry, directory.read(entry))
        self.activate(directory.id, 0)

    def _change(self, **fields: object) -> None:
        record = self.record.model_copy(update=fields)
        content = record.model_dump(mode="json") | {"memory": asdict(record.memory)}
        self.disk.replace(self._path, StoreRecord.model_validate(content).model_dump_json(indent=2).encode())
        self.record = record

    def _read(self) -> StoreRecord:
        try:
            return StoreRecord.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return StoreRecord()
        except (ValidationError, ValueError) as error:
            # Only a failing disk gets here: the file was renamed into place whole.
            _log.warning("%s: %s; starting as a fresh device", self._path, str(error).splitlines()[0])
            return StoreRecord()
