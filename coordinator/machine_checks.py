"""The doctor's look at the machine it runs on: disk, permissions, cameras."""

import grp
import os
import shutil
import stat
from pathlib import Path

from coordinator.doctor_checks import Finding
from edge_agent.protocol.broker import BrokerSettings

# Two deployments of a few MB and logs; an SD card that is fuller than that is about to fail in other ways.
LEAST_FREE_BYTES = 500_000_000


def check_disk(path: Path) -> Finding:
    """Room where deployments and logs go."""
    usage = shutil.disk_usage(path if path.exists() else Path("/"))
    text = f"{usage.free / 1e9:.1f} GB free at {path}"
    if usage.free < LEAST_FREE_BYTES:
        return Finding("FAIL", "disk", text, "journalctl --vacuum-size=50M; remove old deployments")
    return Finding("OK", "disk", text)


def check_permissions(broker: BrokerSettings, config: Path | None) -> list[Finding]:
    """Secrets are readable by us and by nobody else."""
    found = []
    secrets = [(broker.key_file, "private key"), (config if broker.password is not None else None, "password")]
    for path, what in secrets:
        if path is None:
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            found.append(Finding("FAIL", "permissions", f"{path}: {error.strerror}", f"expected the {what} there"))
            continue
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            found.append(Finding("FAIL", "permissions", f"{path}: everybody may read the {what}", f"chmod 600 {path}"))
        elif not os.access(path, os.R_OK):
            found.append(Finding("FAIL", "permissions", f"{path}: not readable for this user", f"ls -l {path}"))
    return found or [Finding("OK", "permissions", "no secret lies open")]


def check_deployment_readable(path: Path) -> Finding:
    """The coordinator's deployment directory, if one was named."""
    manifest = path / "manifest.json"
    if not manifest.is_file():
        return Finding("FAIL", "deployment", f"{manifest} is missing", "nonn-trainer export writes a deployment")
    if not os.access(manifest, os.R_OK):
        return Finding("FAIL", "deployment", f"{manifest}: not readable for this user", f"chmod a+r {manifest}")
    return Finding("OK", "deployment", f"{path} is readable")


def check_cameras(dev: Path = Path("/dev"), groups: frozenset[int] | None = None) -> Finding:
    """V4L2 devices of this machine; their absence is only worth a word."""
    cameras = sorted(dev.glob("video*"))
    if not cameras:
        return Finding("OK", "camera", "none at this machine; frames come over the network")
    if any(os.access(camera, os.R_OK | os.W_OK) for camera in cameras):
        return Finding("OK", "camera", f"{', '.join(camera.name for camera in cameras[:4])} can be opened")
    mine = frozenset(os.getgroups()) if groups is None else groups
    step = "unload whatever holds it" if _video_group() in mine else "usermod -aG video $USER, then log in again"
    return Finding("WARN", "camera", f"{cameras[0]} is there, but this user may not open it", step)


def _video_group() -> int:
    try:
        return grp.getgrnam("video").gr_gid
    except KeyError:
        return -1
