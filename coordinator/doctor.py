"""nonn-coordinator doctor: looks at broker, fleet and machine, and says what to do next."""

import argparse
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from coordinator.broker_probe import probe_broker
from coordinator.doctor_checks import (
    Finding,
    check_broker,
    check_coordinators,
    check_devices,
    check_gather,
    check_leftovers,
    check_students,
    exit_with_failure,
)
from coordinator.fleet_listener import FleetListener
from coordinator.frame_client import FrameClient
from coordinator.machine_checks import check_cameras, check_deployment_readable, check_disk, check_permissions
from coordinator.security_checks import (
    INSECURE,
    check_broker_log,
    check_device_certificates,
    check_encryption,
    check_tls,
)
from coordinator.settings import ClientSettings
from coordinator.tls_probe import probe_tls
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.settings import add_setting_flags, load_settings
from edge_agent.protocol.status import CoordinatorInfo
from edge_agent.protocol.topics import SiteTopics

TEST_IMAGES = 11
DEBIAN_LOG = Path("/var/log/mosquitto/mosquitto.log")
LOG_TAIL_BYTES = 1_000_000  # days of a quiet site
STYLES = {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}
EPILOG = """each line is OK, WARN or FAIL, with the next step behind the arrow

exit codes: 0 nothing failed, 1 something did, 78 bad settings
"""


def add_command(commands: Any) -> None:
    """Add `doctor`."""
    doctor = commands.add_parser(
        "doctor",
        help="find out what is wrong with a site",
        description="Look at broker, coordinator, devices and this machine; say what to do next.",
        epilog=EPILOG,
    )
    doctor.add_argument("--wait", type=float, default=6.0, metavar="S", help="seconds to listen for telemetry [6]")
    doctor.add_argument("--deployment", type=Path, metavar="DIR", help="deployment directory to look at, too")
    doctor.add_argument(
        "--broker-log",
        type=Path,
        metavar="FILE",
        help=f"mosquitto's log: refused logins [{DEBIAN_LOG}, if readable]",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument("--no-frames", action="store_true", help="send no test images through the fleet")
    add_setting_flags(doctor, ClientSettings)
    doctor.set_defaults(job=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    settings = load_settings(ClientSettings, arguments, os.environ)
    findings = [*_look_at_site(settings, arguments.wait, not arguments.no_frames)]
    findings.append(check_disk(arguments.deployment or Path.cwd()))
    findings += check_permissions(settings.broker, arguments.config)
    if arguments.deployment:
        findings.append(check_deployment_readable(arguments.deployment))
    findings.append(check_cameras())
    if arguments.broker_log is not None or (DEBIAN_LOG.exists() and os.access(DEBIAN_LOG, os.R_OK)):
        findings += check_broker_log(_last_lines(arguments.broker_log or DEBIAN_LOG))
    _print(findings, arguments.json)
    return ExitCode.FAILED if exit_with_failure(findings) else ExitCode.OK


def _look_at_site(settings: ClientSettings, wait_s: float, send_frames: bool) -> list[Finding]:
    identity = f"doctor-{secrets.token_hex(4)}"
    topic = f"{SiteTopics(settings.site).root}/doctor/{identity}"
    facts = probe_broker(settings.broker, topic, f"nonn-{identity}")
    findings = check_broker(facts, settings.broker.username, settings.broker.ca_file is not None)
    if facts.tcp_error is None:
        tls = probe_tls(settings.broker)
        findings += check_tls(settings.broker, tls, facts.mqtt is not None, datetime.now(UTC))
    if facts.mqtt is None:
        return findings  # all else hangs on the broker
    listener = FleetListener(settings, watch_everything=True)
    try:
        listener.listen(0.7)
        listener.listen(
            wait_s, lambda: {d.name for d in listener.roster.devices if d.online} <= set(listener.telemetry_at_s)
        )
    except UserError as error:
        return [*findings, Finding("FAIL", "fleet", str(error), "the broker's ACL must let this user read nonn/1/#")]
    finally:
        listener.close()
    devices = listener.roster.devices
    findings += check_encryption(settings.broker, devices)
    findings += check_device_certificates(devices, datetime.now(UTC))
    findings += check_coordinators(settings.coordinator, listener.coordinators, listener.coordinators_online)
    info = listener.coordinators.get(settings.coordinator)
    if info is not None:
        findings += check_students(info, devices)
    findings += check_devices(devices, listener.telemetry_at_s)
    findings += check_leftovers(listener.misplaced_retained, listener.unreadable)
    if info is not None and listener.coordinators_online.get(settings.coordinator) and send_frames:
        findings.append(_gather(settings, info, identity))
    return findings


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected mosquitto's log file") from None


def _gather(settings: ClientSettings, info: CoordinatorInfo, identity: str) -> Finding:
    """Send grey noise through the fleet, one image after the other."""
    generator = np.random.default_rng(0)
    shape = (info.height, info.width, info.channels)
    images = [generator.integers(0, 256, shape, np.uint8) for _ in range(TEST_IMAGES)]
    client = FrameClient(settings, identity)
    try:
        client.wait_for_site(3.0, all_students=False)
        splits = [answer.prediction.latency_ms for answer in client.classify(images, window=1)]
    except UserError as error:
        return Finding("FAIL", "gather", str(error))
    finally:
        client.close()
    return check_gather([s.total for s in splits], [s.transport for s in splits], TEST_IMAGES, info.deadline_ms)


def _print(findings: list[Finding], as_json: bool) -> None:
    if as_json:
        print(json.dumps([{name: getattr(f, name) for name in Finding.__slots__} for f in findings]))
        return
    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        style = STYLES["FAIL"] if finding.check == INSECURE else STYLES[finding.level]
        line = Text.assemble((f"{finding.level:<5}", style), f"{finding.check:<12} {finding.text}")
        if finding.next_step:
            line.append(f"  -> {finding.next_step}", style="cyan")
        console.print(line)
    counts = {level: sum(finding.level == level for finding in findings) for level in STYLES}
    console.print(f"{counts['OK']} OK, {_some(counts['WARN'], 'warning')}, {_some(counts['FAIL'], 'failure')}")


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
