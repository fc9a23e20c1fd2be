"""nonn-edge-setup: a card for a stock Raspberry Pi OS, whose own name, network and clock stay as they are."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.program import ProgramParser, run_program
from firmware_images.first_boot.card_deployment import DeploymentProblemError, install_deployment
from firmware_images.first_boot.card_reader import CardProblemsError
from firmware_images.first_boot.card_settings import CardSettings, parse_card
from firmware_images.first_boot.device_files import (
    OPTIONAL_PATHS,
    DeviceFile,
    MissingSecretError,
    Secrets,
    device_files,
    resolve_secrets,
)
from firmware_images.first_boot.provision import DeviceFolders, check_certificate, known_places, read_secrets, utc
from firmware_images.first_boot.trouble import deployment_is_needed

# What the owner of an ordinary system has set up in his own way.
OURS = ("etc/nonn-edge/", "etc/mosquitto/")
UNITS = ("edge-agent.service", "edge-coordinator.service")
EPILOG = """examples:
  sudo nonn-edge-setup pi-kitchen.toml                      # from: nonn-coordinator device add pi-kitchen
  sudo nonn-edge-setup pi-kitchen.toml --deployment digits/ # with its first students

exit codes: 0 done, 64 usage, 65 a card or deployment with mistakes, 74 disk
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = ProgramParser("nonn-edge-setup", __doc__, EPILOG)
    parser.add_argument("card", type=Path, help="the device's nonn-edge.toml")
    parser.add_argument("--deployment", type=Path, help="a deployment directory; a coordinator needs one")
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    return run_program(lambda: set_up(arguments.card, arguments.deployment, DeviceFolders(Path(), arguments.root)))


def set_up(card: Path, deployment: Path | None, folders: DeviceFolders) -> int:
    """Check everything, then write it; UserError lists what to mend, and nothing has changed."""
    if os.geteuid() != 0:
        raise UserError("nonn-edge-setup writes to /etc: run it as root (sudo)", ExitCode.USAGE)
    content = _read_card(card)
    try:
        settings = parse_card(content, known_places(folders.root))
        secrets = resolve_secrets(settings, read_secrets(folders))
        check_certificate(settings, utc(time.time()))
    except CardProblemsError as error:
        raise UserError("\n  ".join([f"{card}:", *error.problems]), ExitCode.BAD_INPUT) from error
    except MissingSecretError as error:
        raise UserError(f"{card}: {error}", ExitCode.BAD_INPUT) from error
    if settings.runs_coordinator and not (folders.root / "etc/mosquitto").is_dir():
        raise UserError("a coordinator needs its broker: apt install mosquitto", ExitCode.UNAVAILABLE)
    try:
        installed = install_deployment(deployment, folders.root) if deployment else ""
    except DeploymentProblemError as error:
        raise UserError(f"{deployment}: {error}", ExitCode.BAD_INPUT) from error
    has_deployment = (folders.root / "var/lib/nonn-edge/deployment/manifest.json").is_file()
    if not has_deployment and deployment_is_needed(settings):
        raise UserError(f"{card}: this device needs --deployment, a deployment directory", ExitCode.BAD_INPUT)
    write_files(folders, settings, secrets, has_deployment)
    if installed:
        print(f"deployment {installed} installed")
    _start(settings)
    print(f"{settings.name}: role {settings.role}, broker {settings.broker.host}:{settings.broker.port}")
    if settings.broker.tls:
        print(f"delete {card} now: it holds the device's private key")
    return ExitCode.OK


def _read_card(card: Path) -> bytes:
    try:
        return card.read_bytes()
    except OSError as error:
        raise UserError(f"{card}: {error.strerror}") from error


def write_files(folders: DeviceFolders, settings: CardSettings, secrets: Secrets, has_deployment: bool) -> None:
    """Write our settings, and the broker's; remove those that the card no longer asks for."""
    folders.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(folders.state / "secrets.json", json.dumps(asdict(secrets)).encode(), 0o600)
    wanted = [file for file in device_files(settings, secrets, has_deployment=has_deployment) if _is_ours(file.path)]
    for file in wanted:
        _write(folders, file)
    for path in sorted(path for path in OPTIONAL_PATHS if _is_ours(path) and path not in {f.path for f in wanted}):
        (folders.root / path).unlink(missing_ok=True)


def _write(folders: DeviceFolders, file: DeviceFile) -> None:
    target = folders.root / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, file.content.encode(), file.mode)
    if folders.owners and folders.root == Path("/"):
        shutil.chown(target, file.owner, file.group)


def _is_ours(path: str) -> bool:
    return path.startswith(OURS)


def _start(settings: CardSettings) -> None:
    if not Path("/run/systemd/system").is_dir():
        return
    broker = ("mosquitto.service",) if settings.runs_coordinator else ()
    for unit in (*broker, *UNITS):
        subprocess.run(["systemctl", "restart", "--no-block", unit], check=False)


if __name__ == "__main__":
    sys.exit(main())
