"""nonn-coordinator deploy, rollback, purge: changes what a site runs, and cleans up after what has left it."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from coordinator.settings import ClientSettings
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.settings import add_setting_flags, load_settings
from edge_agent.protocol.update_messages import RolloutStatus

ORDER_LIFETIME_S = 24 * 3600  # a device that is off for longer gets the rollback when the order is signed again
FINAL = ("complete", "failed")


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
    from coordinator.deploy_client import DeployClient
    from edge_agent.console.bundle_command import read_bundle
    from edge_agent.protocol.update_messages import DeployRequest

    settings = load_settings(ClientSettings, arguments, os.environ)
    bundle = read_bundle(arguments.bundle)
    manifest = bundle.manifest
    client = DeployClient(settings, bundle)
    try:
        client.wait_for_status(10.0)
        request = DeployRequest(
            transaction=client.name, server=client.name, manifest=bundle.signed_manifest,
            canaries=tuple(arguments.canary), canary_frames=arguments.canary_frames,
            min_agreement=arguments.min_agreement, max_latency_ratio=arguments.max_latency_ratio,
            timeout_s=arguments.timeout,
        )  # fmt: skip
        client.request(request)
        print(f"deployment {bundle.id} ({manifest.name}, version {manifest.version})")
        return _follow(client, bundle.id, arguments.wait)
    finally:
        client.close()


def _rollback(arguments: argparse.Namespace) -> int:
    from coordinator.deploy_client import DeployClient
    from edge_agent.console.bundle_command import read_signing_key
    from edge_agent.protocol.update_messages import DeployRequest, RollbackOrder, SignedContent

    settings = load_settings(ClientSettings, arguments, os.environ)
    key = read_signing_key(arguments.key) if arguments.key is not None else None
    client = DeployClient(settings)
    try:
        status = client.wait_for_status(10.0)
        target = arguments.to or status.previous
        if target is None:
            raise UserError("the coordinator keeps no previous deployment; deploy a bundle of it with a new version")
        now = time.time()
        reached = max(status.active_version, status.previous_version or 0)
        order = RollbackOrder(
            deployment=target, undoes_version=reached, serial=int(now * 1e6), expires=int(now + ORDER_LIFETIME_S)
        ).to_bytes()
        signatures = (key.sign("rollback", order),) if key is not None else ()
        rollback = SignedContent.of(order, signatures)
        client.request(
            DeployRequest(
                transaction=client.name, server=client.name, rollback=rollback, timeout_s=arguments.timeout
            )
        )  # fmt: skip
        print(f"rollback to deployment {target}")
        return _follow(client, target, arguments.wait)
    finally:
        client.close()


def _follow(client: Any, target: str, wait: bool) -> int:
    from coordinator.deploy_progress import DeployProgress

    last: list[RolloutStatus] = []
    with DeployProgress(client.devices, target) as progress:

        def show(status: RolloutStatus) -> None:
            last[:] = [status]
            progress.show(status)

        client.follow(target, lambda status: status.phase in (FINAL if wait else (*FINAL, "switching")), show)
    status = last[0]
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
