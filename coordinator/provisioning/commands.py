"""nonn-coordinator device: the cards of a site's devices, and who belongs to it."""

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordinator.provisioning.arguments import add_days, identifier, now
from coordinator.provisioning.init_command import FOLDER, add_init
from edge_agent.console.exit_codes import ExitCode, UserError

DEVICE_EPILOG = """examples:
  nonn-coordinator device add pi-hub --role both --students auto
  nonn-coordinator device add pi-door --students 0 --camera v4l2 --wifi-ssid Home --wifi-country DE
  nonn-coordinator device add desk --role viewer
  nonn-coordinator device renew pi-hub
  nonn-coordinator device revoke pi-door

The site's folder is --dir, NONN_SITE_DIR or ./nonn-site. A Wi-Fi password comes from NONN_WIFI_PSK, or is asked for.
"""


def add_commands(commands: Any) -> None:
    """Add `init` and `device`."""
    add_init(commands)
    device = commands.add_parser(
        "device", help="add, list, renew and revoke devices and people", description="Who belongs to a site.",
        epilog=DEVICE_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = device.add_subparsers(required=True, metavar="ACTION", parser_class=type(device))
    _add_action(actions, "add", "give a device its card, or a person a certificate", _add, _add_flags)
    _add_action(actions, "list", "who has a certificate, and until when", _list, _list_flags)
    _add_action(actions, "renew", "a new certificate before the old one runs out", _renew, _renew_flags)
    _add_action(actions, "revoke", "make the certificates of a device or person void", _revoke, _name_flag)


def _add_action(
    actions: Any, name: str, text: str, job: Callable[[argparse.Namespace], int], flags: Callable[[Any], None]
) -> None:
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    flags(parser)
    default = Path(os.environ.get("NONN_SITE_DIR", FOLDER))
    parser.add_argument("--dir", type=Path, default=default, metavar="DIR", help=f"the site's folder [{default}]")
    parser.set_defaults(job=job)


def _add_flags(parser: Any) -> None:
    _name_flag(parser)
    roles = ("agent", "coordinator", "both", "operator", "viewer")
    parser.add_argument(
        "--role", choices=roles, default="agent",
        help="agent, coordinator (with the broker) or both: devices; operator and viewer: people and programs [agent]",
    )  # fmt: skip
    parser.add_argument(
        "--students", type=_students, default="auto", metavar="N,N", help="indices, auto, or none for a camera [auto]"
    )
    parser.add_argument("--camera", choices=("v4l2", "picamera2"), help="the device publishes images, too")
    parser.add_argument("--camera-device", default="/dev/video0", metavar="PATH", help="for v4l2 [/dev/video0]")
    parser.add_argument(
        "--source", type=identifier, metavar="NAME", help="what its images are called [the device's name]"
    )
    parser.add_argument("--frames-per-s", type=float, default=5.0, metavar="N", help="of its camera [5]")
    parser.add_argument("--wifi-ssid", metavar="NAME", help="wireless network; none: by cable")
    parser.add_argument("--wifi-country", metavar="CC", help="country code such as DE")
    parser.add_argument("--time-zone", default="", metavar="ZONE", help="such as Europe/Berlin [UTC]")
    parser.add_argument("--ssh-key", type=Path, metavar="FILE", help="public key that may log in [no ssh]")
    _add_out(parser)
    add_days(parser)


def _list_flags(parser: Any) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _renew_flags(parser: Any) -> None:
    _name_flag(parser)
    _add_out(parser)
    add_days(parser)


def _name_flag(parser: Any) -> None:
    parser.add_argument("name", type=identifier, metavar="NAME", help="letters a-z, digits and inner hyphens")


def _add_out(parser: Any) -> None:
    parser.add_argument("--out", type=Path, metavar="PATH", help="where the card's file goes [DIR/cards/NAME]")


def _add(arguments: argparse.Namespace) -> int:
    from coordinator.provisioning.card import CardWishes
    from coordinator.provisioning.membership import add_member, broker_cards

    if arguments.students == () and arguments.camera is None and arguments.role in ("agent", "both"):
        raise UserError("--students none without --camera: this device would have nothing to do", ExitCode.USAGE)
    wishes = CardWishes(
        students=arguments.students if arguments.students != () else "none", camera=arguments.camera,
        camera_device=arguments.camera_device, source=arguments.source, frames_per_s=arguments.frames_per_s,
        wifi=_wifi(arguments), zone=arguments.time_zone, ssh_key=_ssh_key(arguments.ssh_key),
    )  # fmt: skip
    with _open(arguments) as site:
        path = add_member(site, arguments.name, arguments.role, wishes, arguments.out, now(), arguments.days)
        identity = site.ledger.find(arguments.name)
        print(f"{path}: {arguments.name}, valid until {identity.expires:%Y-%m-%d}")
        if not identity.card:
            print(f"next: nonn-coordinator status --config {path}")
        else:
            print("next: copy it onto the card's boot partition as nonn-edge.toml, then delete it here: it holds a key")
        if arguments.role == "agent" and identity.source is None:
            return ExitCode.OK  # covered by the patterns: nothing changes at the broker
        _say_broker_step(site.path, [card for card in broker_cards(site) if card.parent.name != arguments.name])
    return ExitCode.OK


def _list(arguments: argparse.Namespace) -> int:
    from coordinator.provisioning.site_folder import SiteFolder

    ledger, today = SiteFolder(arguments.dir).ledger, now()
    rows: list[dict[str, Any]] = [
        {
            "name": identity.name, "role": identity.kind, "student": identity.card.get("device", {}).get("student"),
            "source": identity.source, "expires": identity.expires.isoformat(), "state": identity.state(today),
        }
        for identity in ledger.identities
    ]  # fmt: skip
    if arguments.json:
        print(json.dumps(rows))
        return ExitCode.OK
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"site {ledger.site}", title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in ("name", "role", "student", "source", "valid until", "state"):
        table.add_column(column, no_wrap=True)
    styles = {"valid": "green", "renew": "yellow", "expired": "bold red", "revoked": "dim"}
    for row in rows:
        student = "" if row["student"] is None else str(row["student"])
        state = Text(str(row["state"]), style=styles[str(row["state"])])
        table.add_row(row["name"], row["role"], student, row["source"] or "", str(row["expires"])[:10], state)
    Console().print(table)
    return ExitCode.OK


def _renew(arguments: argparse.Namespace) -> int:
    from coordinator.provisioning.membership import broker_cards, renew_member

    with _open(arguments) as site:
        path = renew_member(site, arguments.name, arguments.out, now(), arguments.days)
        identity = site.ledger.find(arguments.name)
        print(f"{path}: {arguments.name}, valid until {identity.expires:%Y-%m-%d}")
        if identity.kind == "broker":
            _say_broker_step(site.path, broker_cards(site, new_server_key=True))
        elif identity.card:
            print(
                "next: copy it over the card's nonn-edge.toml and start the device again; the old one counts until then"
            )
    return ExitCode.OK


def _revoke(arguments: argparse.Namespace) -> int:
    from coordinator.provisioning.membership import broker_cards, revoke_member

    with _open(arguments) as site:
        revoke_member(site, arguments.name, now())
        print(f"{arguments.name}: no certificate of it counts any more, once the broker knows")
        _say_broker_step(site.path, broker_cards(site))
    return ExitCode.OK


def _say_broker_step(folder: Path, cards: list[Path]) -> None:
    print(f"next: let the broker read {folder}/broker/access and revoked.pem again: systemctl reload mosquitto, or HUP")
    for card in cards:
        print(f"next: {card.parent.name} is the broker: copy {card} onto its card and start it again")


class _open:  # noqa: N801 (reads as a verb where it is used)
    """The site's folder, while nobody else changes it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from coordinator.provisioning.site_folder import SiteFolder

        self._site = SiteFolder(arguments.dir)
        self._lock = self._site.locked()

    def __enter__(self) -> Any:
        self._lock.__enter__()
        return self._site

    def __exit__(self, *problem: object) -> None:
        self._lock.__exit__(None, None, None)


def _wifi(arguments: argparse.Namespace) -> Any:
    from edge_agent.protocol.device_card import Wifi

    if arguments.wifi_ssid is None:
        return None
    if arguments.wifi_country is None:
        raise UserError("--wifi-country: expected a code such as DE: it decides the channels", ExitCode.USAGE)
    psk = os.environ.get("NONN_WIFI_PSK")
    if psk is None and not sys.stdin.isatty():
        raise UserError("the Wi-Fi password: expected NONN_WIFI_PSK, or a terminal to ask on", ExitCode.USAGE)
    psk = psk if psk is not None else getpass.getpass(f"Password of {arguments.wifi_ssid}: ")
    return Wifi(arguments.wifi_ssid, psk, arguments.wifi_country)


def _ssh_key(path: Path | None) -> str:
    if path is None:
        return ""
    text = path.read_text(encoding="utf-8").strip()
    if "PRIVATE KEY" in text or "\n" in text or not text.startswith(("ssh-", "ecdsa-", "sk-")):
        raise UserError(f"{path}: expected a public key, one line such as ssh-ed25519 AAAA... me")
    return text


def _students(text: str) -> Any:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else ()
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) < 256 for part in parts) or len(set(parts)) != len(parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not auto, none or a list of student numbers such as 0,2")
    return tuple(int(part) for part in parts)
