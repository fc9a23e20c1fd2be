"""What the doctor makes of what it saw: facts -> findings, each with the next step. Pure."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from coordinator.broker_probe import BrokerFacts
from coordinator.roster import Device
from edge_agent.protocol.status import CoordinatorInfo

Level = Literal["OK", "WARN", "FAIL"]
# Delayed ACKs take 40 ms on Linux. The receiver acknowledges about every second burst at once, so half of them are
# held back; a busy machine makes single ones that slow, too.
NAGLE_MS = (36.0, 60.0)
NAGLE_SHARE = 0.25
SLOW_ROUND_TRIP_MS = 20.0  # wired or good Wi-Fi stays far below
CLOCK_TOLERANCE_S = 5.0  # certificates and frame times bear that much
HOT_C = 80.0  # where a Pi's firmware begins to slow the CPU
LOOPBACK = ("127.", "localhost:", "::1", "[::1]")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Level
    check: str
    text: str
    next_step: str = ""


def check_broker(facts: BrokerFacts, username: str | None, encrypted: bool) -> list[Finding]:
    """Reachable, login, version, round trip, NODELAY."""
    if facts.tcp_error is not None:
        step = "start the broker there, or set --broker-host and --broker-port; a firewall drops silently"
        return [Finding("FAIL", "broker", f"{facts.address}: {facts.tcp_error}", step)]
    if facts.mqtt is None:
        step = "check username, password and the broker's password and ACL files" if facts.refused else (
            "is it an MQTT broker, and is this its TLS or its plain port? see broker.ca_file"
        )  # fmt: skip
        name = "login" if facts.refused else "broker"
        reason = (facts.login_error or "no MQTT answer").removeprefix(f"{facts.address}: ")
        return [Finding("FAIL", name, f"{facts.address}: {reason}", step)]
    found = [Finding("OK", "broker", f"{facts.address} answers, MQTT {facts.mqtt}{_version_note(facts.version)}")]
    found.append(_login_finding(facts, username, encrypted))
    if facts.version and facts.version.startswith("mosquitto version 1."):
        found.append(Finding("WARN", "version", facts.version, "update to mosquitto 2: MQTT 5 and safer defaults"))
    return [*found, *_timing_findings(facts)]


def _version_note(version: str | None) -> str:
    return f", {version}" if version else ", version not told"


def _login_finding(facts: BrokerFacts, username: str | None, encrypted: bool) -> Finding:
    if facts.address.startswith(LOOPBACK):
        return Finding("OK", "login", "accepted on loopback")
    if username is None and not encrypted:  # --insecure is another finding's matter, in red
        step = "give each device a certificate or password: docs/install.md"
        return Finding("WARN", "login", "accepted without any: whoever is on the network can publish answers", step)
    if not encrypted:
        return Finding("WARN", "login", "accepted, but the password travels unencrypted", "set broker.ca_file: TLS")
    return Finding("OK", "login", "accepted over TLS")


def _timing_findings(facts: BrokerFacts) -> list[Finding]:
    if facts.round_trip_ms is None or not facts.bursts_ms:
        reason = facts.login_error or "a message to ourselves did not come back"
        step = "the broker's ACL must let this user write and read nonn/1/<site>/doctor/#"
        return [Finding("WARN", "round trip", reason, step)]
    found = []
    slow = facts.round_trip_ms > SLOW_ROUND_TRIP_MS
    step = "look at Wi-Fi power saving (iw dev wlan0 set power_save off), signal and load" if slow else ""
    text = f"{facts.round_trip_ms:.2f} ms for 1 KB there and back"
    found.append(Finding("WARN" if slow else "OK", "round trip", text, step))
    held_back = [ms for ms in facts.bursts_ms if NAGLE_MS[0] <= ms - facts.round_trip_ms <= NAGLE_MS[1]]
    count = len(facts.bursts_ms)
    if len(held_back) >= NAGLE_SHARE * count:
        took = f"{len(held_back)} of {count} bursts of messages took {statistics.median(held_back):.0f} ms"
        text = f"{took}: Nagle's 40 ms, for clients that do not acknowledge at once as ours do on Linux"
        step = "add `set_tcp_nodelay true` to mosquitto.conf and restart it"
        return [*found, Finding("WARN", "nodelay", text, step)]
    text = f"four messages at once arrive within {statistics.median(facts.bursts_ms):.2f} ms"
    return [*found, Finding("OK", "nodelay", text)]


def check_coordinators(name: str, known: Mapping[str, CoordinatorInfo], online: Mapping[str, bool]) -> list[Finding]:
    """The site's coordinator is there."""
    info = known.get(name)
    if info is None or not online.get(name):
        others = ", ".join(sorted(other for other, is_on in online.items() if is_on))
        seen = f"; online: {others}" if others else ""
        step = "start it: nonn-coordinator run --deployment DIR"
        return [
            Finding("FAIL", "coordinator", f"{name} is {'offline' if info else 'unknown'} at this site{seen}", step)
        ]
    text = f"{name} {info.coordinator_version}, deployment {info.deployment_name} {info.deployment}"
    return [Finding("OK", "coordinator", text)]


def check_students(info: CoordinatorInfo, devices: Sequence[Device]) -> list[Finding]:
    """Each student runs somewhere; devices agree on the deployment."""
    found = []
    holders: dict[int, list[str]] = {student: [] for student in range(info.students)}
    for device in devices:
        if device.online and device.info and device.info.deployment == info.deployment:
            for student in device.students:
                holders.get(student, []).append(device.name)
    for student, names in holders.items():
        if names:
            found.append(Finding("OK", f"student {student}", f"on {', '.join(names)}"))
        else:
            step = f"start an agent with --students {student}; answers are degraded until then"
            found.append(Finding("FAIL", f"student {student}", "runs on no online device", step))
    for device in devices:
        if device.online and device.info and device.info.deployment != info.deployment:
            text = f"{device.name} runs {device.info.deployment}, the coordinator {info.deployment}: never merged"
            step = f"deploy one to all, or restart {device.name} with the coordinator's deployment directory"
            found.append(Finding("FAIL", "deployment", text, step))
    return found


def check_devices(devices: Sequence[Device], reported_at_s: Mapping[str, float]) -> list[Finding]:
    """Offline, throttled, hot, silent devices, and clocks."""
    found = []
    for device in devices:
        if device.online and device.info:
            step = "take its card to a PC: nonn-edge-error.txt says the same; correct it and start the device again"
            found += [Finding("FAIL", device.name, problem, step) for problem in device.info.problems or ()]
        if not device.online:
            step = (
                f"power, network, `journalctl -u edge-agent` there; gone for good: nonn-coordinator purge {device.name}"
            )
            found.append(Finding("WARN", "device", f"{device.name} is offline", step))
            continue
        seen = device.telemetry
        if seen is None:
            step = "telemetry comes every few seconds; listen longer: --wait 15"
            found.append(Finding("WARN", "device", f"{device.name} is online, but has not reported", step))
            continue
        problem = _device_problem(device)
        found.append(problem or Finding("OK", "device", _device_text(device)))
        found += _camera_findings(device)
        if device.name in reported_at_s:
            found += _clock_findings(device, reported_at_s[device.name])
    return found


def _camera_findings(device: Device) -> list[Finding]:
    """A device with a camera must have published frames of it."""
    source, seen = device.info.camera if device.info else None, device.telemetry
    if source is None or seen is None:
        return []
    if not seen.frames_captured:
        step = f"on {device.name}: is the camera plugged in? `journalctl -u edge-agent` names what it tried"
        return [Finding("WARN", "camera", f"{device.name} has published no frame of {source}", step)]
    return [Finding("OK", "camera", f"{device.name} has published {seen.frames_captured} frames of {source}")]


def _device_problem(device: Device) -> Finding | None:
    seen = device.telemetry
    if seen is None:
        return None
    if seen.throttled:
        step = "a stronger power supply and a heat sink; `vcgencmd get_throttled` tells which"
        return Finding("WARN", "device", f"{device.name} is throttled: under-voltage or heat slow it down", step)
    if seen.temperature_c is not None and seen.temperature_c >= HOT_C:
        return Finding("WARN", "device", f"{device.name} is {seen.temperature_c:.0f} °C hot", "a heat sink or a fan")
    return None


def _device_text(device: Device) -> str:
    seen = device.telemetry
    if seen is None:
        return device.name
    parts = [device.name, f"up {seen.uptime_s / 3600:.1f} h"]
    if seen.student_ms_p50 is not None:
        parts.append(f"student {seen.student_ms_p50:.2f} ms")
    if seen.temperature_c is not None:
        parts.append(f"{seen.temperature_c:.0f} °C")
    return ", ".join(parts)


def _clock_findings(device: Device, reported_at_s: float) -> list[Finding]:
    seen = device.telemetry
    if seen is None:
        return []
    # The session is the device's wall clock at its start, uptime its monotonic clock since.
    offset_s = seen.session / 1e6 + seen.uptime_s - reported_at_s
    if abs(offset_s) <= CLOCK_TOLERANCE_S:
        return []
    step = f"on {device.name}: timedatectl; then restart the agent, so that its session number is right"
    return [Finding("WARN", "clock", f"{device.name}: {offset_s:+.0f} s off when its agent started", step)]


def check_leftovers(misplaced: Iterable[str], unreadable: Iterable[str]) -> list[Finding]:
    """Retained messages where live ones belong, and messages that nobody can read."""
    topics, texts = sorted(misplaced), sorted(unreadable)
    found = []
    for topic in topics[:5]:
        step = f"mosquitto_pub -r -n -t '{topic}'"
        found.append(Finding("WARN", "leftover", f"retained message on {topic}: stale by definition", step))
    if len(topics) > 5:
        found.append(Finding("WARN", "leftover", f"{len(topics) - 5} more retained messages of that kind"))
    found += [
        Finding("WARN", "messages", text, "a program of another version, or not one of ours") for text in texts[:5]
    ]
    return found or [Finding("OK", "leftovers", "no retained message where it does not belong")]


def check_gather(totals_ms: Sequence[float], transports_ms: Sequence[float], sent: int, deadline_ms: float) -> Finding:
    """Test images through the whole fleet. Milliseconds of each answer."""
    if len(totals_ms) < sent:
        text = f"{sent - len(totals_ms)} of {sent} test images got no answer"
        return Finding("FAIL", "gather", text, "is the coordinator set to answer only other sources?")
    middle = len(totals_ms) // 2
    total, transport = sorted(totals_ms)[middle], sorted(transports_ms)[middle]
    text = f"{total:.1f} ms from frame to answer, {transport:.1f} ms of it transport (median of {sent})"
    if total >= 0.8 * deadline_ms:
        return Finding("WARN", "gather", text, f"close to the deadline of {deadline_ms:g} ms; see the students above")
    return Finding("OK", "gather", text)


def exit_with_failure(findings: Iterable[Finding]) -> bool:
    """Warnings do not fail: a fleet with one device off still answers."""
    return any(finding.level == "FAIL" for finding in findings)
