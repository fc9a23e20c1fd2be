"""A deployment on disk: manifest.json and the files that it lists."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.manifest import FileEntry, Manifest, deployment_id, parse_manifest

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class DeploymentDirectory:
    """A parsed deployment; files are checked when they are read."""

    path: Path
    id: str
    manifest: Manifest

    def read(self, entry: FileEntry) -> bytes:
        """Content of a listed file; UserError if it is missing, has another length or another hash."""
        path = self.path / entry.file
        try:
            return entry.check(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; the manifest lists it") from None
        except ManifestError as error:
            raise UserError(f"{self.path}: {error}") from None

    def check(self, entry: FileEntry) -> Path:
        """Where a listed file is, after a look at its length and hash, piece by piece: engines map it, we need not."""
        path = self.path / entry.file
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                entry.check_digest(file.tell(), digest)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; the manifest lists it") from None
        except ManifestError as error:
            raise UserError(f"{self.path}: {error}") from None
        return path


def open_deployment(path: Path) -> DeploymentDirectory:
    """Read `path`/manifest.json; UserError says what is wrong with it."""
    manifest_path = path / MANIFEST_FILE
    try:
        content = manifest_path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        inner = path / "export"
        message = f"{manifest_path}: {reason}; expected a deployment directory, as nonn-trainer export writes it"
        if (inner / MANIFEST_FILE).is_file():  # the directory of a run
            message = f"{manifest_path}: {reason}; expected {inner}"
        raise UserError(message, ExitCode.BAD_INPUT) from None
    try:
        return DeploymentDirectory(path, deployment_id(content), parse_manifest(content))
    except ManifestError as error:
        raise UserError(f"{manifest_path}: {error}") from None
