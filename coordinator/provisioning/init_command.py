"""nonn-coordinator init: a site's authority, its broker's configuration, its keys."""

import argparse
import platform
from pathlib import Path
from typing import Any

from coordinator.provisioning.arguments import add_days, identifier, now, port
from edge_agent.console.exit_codes import ExitCode, UserError

FOLDER = "nonn-site"


def add_init(commands: Any) -> None:
    """Add `init`."""
    init = commands.add_parser(
        "init",
        help="make a site: authority, broker configuration, keys",
        description="Make a site's folder: private authority, broker certificate and configuration, access rules, "
        "the coordinator's and the operator's certificates and settings, the key that signs deployments.",
    )
    init.add_argument("dir", type=Path, nargs="?", default=Path(FOLDER), help=f"folder to make [{FOLDER}]")
    init.add_argument("--site", type=identifier, default="home", metavar="NAME", help="name of the site [home]")
    init.add_argument("--broker-host", metavar="HOST", help="where devices find the broker [this host, as NAME.local]")
    init.add_argument("--broker-port", type=port, default=8883, metavar="PORT", help="port of its TLS listener [8883]")
    init.add_argument(
        "--broker-name", action="append", default=[], metavar="NAME", help="another name or address of the broker"
    )
    init.add_argument("--broker-files", type=Path, metavar="DIR", help="where its files will lie there [DIR/broker]")
    add_days(init)
    init.set_defaults(job=_init)


def _init(arguments: argparse.Namespace) -> int:
    from coordinator.provisioning.ledger import LEDGER_FILE, Ledger
    from coordinator.provisioning.site_folder import SiteFolder

    folder: Path = arguments.dir
    own = platform.node().split(".")[0].lower() or "localhost"
    host = arguments.broker_host or f"{own}.local"
    names = dict.fromkeys([host, *arguments.broker_name, "localhost", "127.0.0.1", "::1", own])
    wanted = Ledger(
        schema=1, site=arguments.site, broker_host=host, broker_port=arguments.broker_port, broker_names=tuple(names),
        broker_folder=str((arguments.broker_files or folder / "broker").absolute()),
    )  # fmt: skip
    if (folder / LEDGER_FILE).exists():
        site = SiteFolder(folder)
        keys = ("site", "broker_host", "broker_port")
        different = [key for key in keys if getattr(site.ledger, key) != getattr(wanted, key)]
        if different:
            shown = ", ".join(f"{key} {getattr(site.ledger, key)}" for key in different)
            message = f"{folder}: is a site with {shown} already; expected another folder: keys are never overwritten"
            raise UserError(message, ExitCode.CONFIGURATION)
        print(f"{folder}: site {site.ledger.site} is there already; nothing changed")
        return ExitCode.OK
    site = SiteFolder.create(folder, wanted, now(), arguments.days)
    print(f"{folder}: site {site.ledger.site}, broker {host}:{site.ledger.broker_port}")
    print(f"  {folder}/authority, {folder}/keys: secrets of the whole site; keep a copy offline, and nobody else near")
    print(f"  {folder}/broker/mosquitto.conf: try it with mosquitto -c {folder}/broker/mosquitto.conf")
    print(f"  {folder}/coordinator/coordinator.toml: nonn-coordinator run --config it --deployment DIR")
    print(f"  {folder}/clients/operator/operator.toml: for status, classify, deploy, doctor: --config it")
    print(f"next: nonn-coordinator device add NAME --dir {folder}")
    return ExitCode.OK
