"""nonn-coordinator assign: an operator's choice of students for one device."""

import argparse
import os
import secrets
import time
from typing import Any

from coordinator.settings import ClientSettings
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.settings import add_setting_flags, load_settings
from edge_agent.protocol.fleet_messages import AssignRequest, Response
from edge_agent.protocol.json_message import decode_json
from edge_agent.protocol.link import Message, Outgoing
from edge_agent.protocol.link_choice import open_link
from edge_agent.protocol.topics import MAX_STUDENTS, SiteTopics, check_id

PATIENCE_S = 5.0
RESEND_S = 1.0  # a request sent before the coordinator has subscribed is lost


def add_command(commands: Any) -> None:
    """Add `assign`."""
    parser = commands.add_parser(
        "assign",
        help="choose a device's students by hand",
        description="Choose the students of a device that runs with --students auto; `auto` gives the choice back.",
    )
    parser.add_argument("device", help="name of the device")
    parser.add_argument("students", type=_students, help="such as 0 or 0,2; none; or auto")
    add_setting_flags(parser, ClientSettings)
    parser.set_defaults(job=_assign)


def _students(text: str) -> tuple[int, ...] | None:
    if text == "auto":
        return None
    parts = [] if text == "none" else text.split(",")
    if not all(part.isdecimal() and int(part) < MAX_STUDENTS for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected such as 0 or 0,2, none or auto")
    return tuple(int(part) for part in parts)


def _assign(arguments: argparse.Namespace) -> int:
    settings = load_settings(ClientSettings, arguments, os.environ)
    try:
        device = check_id(arguments.device, "device")
    except ValueError as error:
        raise UserError(str(error), ExitCode.USAGE) from None
    request = AssignRequest(transaction=secrets.token_hex(8), device=device, students=arguments.students)
    answer = ask(settings, request)
    if answer.status != "ok":
        raise UserError(answer.error or "refused without a reason")
    chosen = "auto" if request.students is None else ", ".join(map(str, request.students)) or "none"
    print(f"{device}: students {chosen}")
    return ExitCode.OK


def ask(settings: ClientSettings, request: AssignRequest) -> Response:
    """Send until the coordinator answers; UserError if it does not."""
    topics = SiteTopics(settings.site)
    link = open_link(settings.broker, f"nonn-assign-{request.transaction}", [(topics.response("assign"), 1)])
    reason = "no broker"
    try:
        deadline, send_at = time.monotonic() + PATIENCE_S, 0.0
        while time.monotonic() < deadline:
            for event in link.poll(0.05):
                answer = decode_json(Response, event.payload) if isinstance(event, Message) else None
                if answer is not None and answer.transaction == request.transaction:
                    return answer
            if link.connected and time.monotonic() >= send_at:
                send_at, reason = time.monotonic() + RESEND_S, "no coordinator that assigns students answers"
                link.publish(Outgoing(topics.request("assign"), request.encode(), qos=1))
    finally:
        link.close()
    where = f"{settings.broker.host}:{settings.broker.port}, site {settings.site!r}"
    raise UserError(f"{reason} at {where} within {PATIENCE_S:g} s", ExitCode.UNAVAILABLE)
