"""nonn-coordinator deploy, rollback, purge: changes what a site runs, and cleans up after what has left it."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordinator.settings import ClientSettings
from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.settings import add_setting_flags, load_settings

if TYPE_CHECKING:
    from coordinator.deploy_client import DeployClient
    from edge_agent.protocol.update_messages import SignedContent

STATUS_PATIENCE_S = 10.0


def add_deploy_commands(commands: Any) -> None:
    """Add the three commands to the coordinator's parser."""
    deploy = commands.add_parser("deploy", help="bring a bundle to the site", description="Bring a bundle to the site.")
    deploy.add_argument("bundle", type=Path, metavar="BUNDLE", help="file of nonn-trainer bundle, signed")
    deploy.add_argument("--canary", nargs="+", default=[], metavar="DEVICE", help="try it in shadow on these first")
    deploy.add_argument("--canary-frames", type=int, default=100, metavar="N", help="frames to compare [100]")
    deploy.add_argument(
        "--min-agreement", type=float, default=0.9, metavar="SHARE", help="frames with the same class as now [0.9]"
    )
    deploy.add_argument(
        "--max-latency-ratio", type=float, default=1.5, metavar="R", help="p95 of the new students over the old [1.5]"
    )
    _add_waiting(deploy)
    add_setting_flags(deploy, ClientSettings)
    deploy.set_defaults(job=_deploy)

    rollback = commands.add_parser(
        "rollback", help="go back to the previous deployment", description="Go back to the previous deployment."
    )
    rollback.add_argument("--key", type=Path, metavar="FILE", help="private key: a rollback is signed, as updates are")
    rollback.add_argument("--order-out", type=Path, metavar="FILE", help="sign an order into FILE and send nothing")
    rollback.add_argument("--order", type=Path, metavar="FILE", help="send an order that was signed before")
    rollback.add_argument("--to", metavar="ID", help="deployment to go back to [the previous one]")
    _add_waiting(rollback)
    add_setting_flags(rollback, ClientSettings)
    rollback.set_defaults(job=_rollback)

    purge = commands.add_parser(
        "purge",
        help="clear what the broker keeps of a device, or of the site",
        description="Clear the retained messages of devices that are gone for good, or of a whole site.",
    )
    purge.add_argument("devices", nargs="*", metavar="DEVICE", help="devices that will not come back")
    purge.add_argument("--whole-site", action="store_true", help="everything below nonn/1/SITE")
    purge.add_argument("--force", action="store_true", help="even if the device is online")
    add_setting_flags(purge, ClientSettings)
    purge.set_defaults(job=_purge)


def _add_waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="stay until it is final; else until the devices have it")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="S", help="longest wait for devices [300]")


def _deploy(arguments: argparse.Namespace) -> int:
    from coordinator.deploy_client import CanaryRules, DeployClient
    from edge_agent.console.bundle_command import read_bundle

    settings = load_settings(ClientSettings, arguments, os.environ)
    bundle = read_bundle(arguments.bundle)
    rules = CanaryRules(
        tuple(arguments.canary), arguments.canary_frames, arguments.min_agreement, arguments.max_latency_ratio
    )
    client = DeployClient(settings, bundle)
    try:
        client.wait_for_status(STATUS_PATIENCE_S)
        client.deploy(rules, arguments.timeout)
        print(f"deployment {bundle.id} ({bundle.manifest.name}, version {bundle.manifest.version})")
        return _follow(client, bundle.id, arguments.wait)
    finally:
        client.close()


def _rollback(arguments: argparse.Namespace) -> int:
    from coordinator.deploy_client import DeployClient
    from edge_agent.console.bundle_command import read_signing_key

    settings = load_settings(ClientSettings, arguments, os.environ)
    if arguments.order is not None and (arguments.key, arguments.to, arguments.order_out) != (None, None, None):
        raise UserError(
            "rollback: --order is signed already; expected neither --key, --to nor --order-out", ExitCode.USAGE
        )
    key = read_signing_key(arguments.key) if arguments.key is not None else None
    order = _read_order(arguments.order) if arguments.order is not None else None
    client = DeployClient(settings)
    try:
        client.wait_for_status(STATUS_PATIENCE_S)
        order = order or client.rollback_order(key, arguments.to)
        if arguments.order_out is not None:
            write_atomically(arguments.order_out, order.model_dump_json().encode() + b"\n")
            print(f"{arguments.order_out}: for 24 hours, nonn-coordinator rollback --order {arguments.order_out}")
            return ExitCode.OK
        target = _sent(client, order, arguments)
        print(f"rollback to deployment {target}")
        return _follow(client, target, arguments.wait)
    finally:
        client.close()


def _sent(client: "DeployClient", order: "SignedContent", arguments: argparse.Namespace) -> str:
    try:
        return client.roll_back(order, arguments.timeout)
    except UserError as error:
        if order.signatures:
            raise
        raise UserError(f"{error}; expected --key FILE, or --order FILE, signed elsewhere", error.exit_code) from None


def _read_order(path: Path) -> "SignedContent":
    from coordinator.deploy_client import parse_order

    try:
        return parse_order(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a rollback order") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _follow(client: "DeployClient", target: str, wait: bool) -> int:
    from coordinator.deploy_client import ANNOUNCED, FINAL
    from coordinator.deploy_progress import DeployProgress

    with DeployProgress(client.devices, target) as progress:
        status = client.follow(target, FINAL if wait else ANNOUNCED, progress.show)
    if status.phase == "failed":
        print(f"error: not deployed: {status.error}", file=sys.stderr)
        return ExitCode.FAILED
    words = "answers" if status.phase == "complete" else "answers from the announced frames on; the trial goes on"
    print(f"deployment {target} {words}")
    return ExitCode.OK


def _purge(arguments: argparse.Namespace) -> int:
    from coordinator.purge import purge

    settings = load_settings(ClientSettings, arguments, os.environ)
    if bool(arguments.devices) == arguments.whole_site:
        raise UserError("purge: expected names of devices, or --whole-site", ExitCode.USAGE)
    cleared = purge(settings, arguments.devices, arguments.force)
    for topic in cleared:
        print(f"cleared {topic}")
    print(f"{len(cleared)} retained messages cleared")
    return ExitCode.OK
