"""nonn-coordinator status and watch: the fleet as a table, once or live."""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from coordinator.fleet_listener import FleetListener
from coordinator.roster import Device
from coordinator.security_checks import RENEW_BEFORE
from coordinator.settings import ClientSettings
from coordinator.update_view import UpdateView
from edge_agent.console.exit_codes import ExitCode
from edge_agent.console.program import StopFlag
from edge_agent.console.settings import add_setting_flags, load_settings
from edge_agent.protocol.status import NodeTelemetry

Row = dict[str, Text]

REFRESH_S = 0.25
LOGGED_S = 5.0  # between two states in a log: as often as telemetry comes
PIPE_COLUMNS = 160
GAP = 2  # between two columns, as rich draws them
BROKER_TIMEOUT_S = 3.0
# Retained messages come at once; telemetry every five seconds, answers as there are frames.
RETAINED_S, LOOK_S = 0.5, 5.5
RIGHT = frozenset({"answers/s", "p50", "p50/p95", "answered", "dropped", "CPU", "memory", "temp", "power"})
COORDINATOR_COLUMNS = ("coordinator", "state", "deployment", "students", "deadline")
# What a narrow terminal does without, first to last.
LEAST_NEEDED = ("memory", "CPU", "deadline", "engine", "answered", "power", "temp", "dropped", "update")
DEVICE_COLUMNS = (
    "device", "state", "students", "engine", "p50/p95", "answered", "dropped", "CPU", "memory", "temp", "power",
    "update",
)  # fmt: skip


def add_command(commands: Any) -> None:
    """Add `status` and `watch`."""
    status = commands.add_parser(
        "status", help="the fleet as a table", description="Who is online, what it runs, how fast it answers."
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    status.add_argument(
        "--wait", type=float, default=LOOK_S, metavar="S", help=f"seconds to listen for telemetry [{LOOK_S:g}]"
    )
    add_setting_flags(status, ClientSettings)
    status.set_defaults(job=_status)
    watch = commands.add_parser(
        "watch", help="the same, live", description="The fleet as a table that keeps up, until Ctrl-C."
    )
    add_setting_flags(watch, ClientSettings)
    watch.set_defaults(job=_watch)


def _status(arguments: argparse.Namespace) -> int:
    listener = FleetListener(load_settings(ClientSettings, arguments, os.environ))
    try:
        listener.require_broker(BROKER_TIMEOUT_S)
        listener.listen(RETAINED_S)
        listener.listen(arguments.wait - RETAINED_S, lambda: _all_reported(listener))
        if arguments.json:
            print(json.dumps(listener.as_json()))
        else:
            console = _console()
            console.print(fleet_tables(listener, time.monotonic(), console.width))
    finally:
        listener.close()
    return ExitCode.OK if is_whole(listener) else ExitCode.FAILED


def _watch(arguments: argparse.Namespace) -> int:
    listener = FleetListener(load_settings(ClientSettings, arguments, os.environ))
    stop = StopFlag()
    stop.listen()
    try:
        listener.require_broker(BROKER_TIMEOUT_S)
        console, shown = _console(), ""
        # Live draws nothing into a pipe or a log before its end; there each new state is printed below the last.
        with Live(console=console, auto_refresh=False, screen=True) if console.is_terminal else nullcontext() as live:
            while not stop.stopped:
                listener.listen(REFRESH_S if live else LOGGED_S, lambda: stop.stopped)
                tables = fleet_tables(listener, time.monotonic(), console.width)
                if live is not None:
                    live.update(tables, refresh=True)
                    continue
                with console.capture() as drawn:
                    console.print(tables)
                if drawn.get() != shown:
                    shown = drawn.get()
                    print(shown, flush=True)
    finally:
        listener.close()
    return ExitCode.OK


def _console() -> Console:
    """As wide as the terminal; into a pipe or a file, where rich would take 80 columns, as wide as the tables are."""
    free = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=PIPE_COLUMNS if free else None)


def is_whole(listener: FleetListener) -> bool:
    """True while a coordinator is online and every student of its deployment runs somewhere."""
    online = [info for name, info in listener.coordinators.items() if listener.coordinators_online.get(name)]
    return bool(online) and all(not listener.roster.missing(info.deployment, info.students) for info in online)


def fleet_tables(listener: FleetListener, now: float, width: int) -> RenderableType:
    """Coordinators, devices and sources, in `width` columns of characters."""
    parts: list[RenderableType] = [*_warnings(listener), _coordinators(listener, width), _devices(listener, width)]
    if listener.sources:
        parts.append(_sources(listener, now))
    if not listener.connected:
        parts.append(Text(f"no broker: {listener.trouble or 'connection lost'}", style="bold red"))
    return Group(*parts)


def _warnings(listener: FleetListener) -> list[Text]:
    """What must not be overlooked: messages in the open, in red, and certificates about to run out."""
    lines = [Text(f"INSECURE: {text}", style="bold red") for text in listener.in_the_open()]
    now = datetime.now(UTC)
    for name, until in sorted(listener.certificates().items()):
        if until - now < RENEW_BEFORE:
            over = until <= now
            words = f"{name}: certificate {'ran' if over else 'runs'} out on {until:%Y-%m-%d}; renew it"
            lines.append(Text(words, style="bold red" if over else "yellow"))
    return lines


def _coordinators(listener: FleetListener, width: int) -> Table:
    rows = []
    for name in sorted({*listener.coordinators, *listener.coordinators_online}):
        info = listener.coordinators.get(name)
        row = dict.fromkeys(COORDINATOR_COLUMNS, Text())
        row["coordinator"], row["state"] = Text(name), _state(listener.coordinators_online.get(name, False))
        rows.append(row)
        if info is None:
            continue
        missing = listener.roster.missing(info.deployment, info.students)
        students = f"{info.students - len(missing)} of {info.students}"
        note = Text(f"{students}, without {', '.join(map(str, missing))}", style="red") if missing else Text(students)
        row["deployment"], row["students"] = Text(f"{info.deployment_name} {info.deployment}"), note
        row["deadline"] = Text(f"{info.deadline_ms:g} ms")
    if not rows:
        rows.append({**dict.fromkeys(COORDINATOR_COLUMNS, Text()), "coordinator": Text("none seen", style="red")})
    return _table(f"site {listener.settings.site}", rows, _fitting(COORDINATOR_COLUMNS, rows, width))


def _devices(listener: FleetListener, width: int) -> RenderableType:
    wanted = {info.deployment for name, info in listener.coordinators.items() if listener.coordinators_online.get(name)}
    rows = [_device_row(device, wanted, listener.updates.get(device.name)) for device in listener.roster.devices]
    if not rows:
        return Text("no device seen", style="red")
    # What no device can measure gets no column: a terminal has 80 of them.
    columns = [column for column in DEVICE_COLUMNS if any(row[column].plain for row in rows) or column == "device"]
    return _table("", rows, _fitting(columns, rows, width))


def _fitting(columns: Sequence[str], rows: Sequence[Row], width: int) -> list[str]:
    """The columns that `width` has room for: whole ones, not all of them cut to two letters."""
    kept = list(columns)
    widths = {column: max(len(column), *(row[column].cell_len for row in rows)) + GAP for column in columns}
    for least in LEAST_NEEDED:
        if sum(widths[column] for column in kept) - GAP <= width:
            break
        if least in kept:
            kept.remove(least)
    return kept


def _device_row(device: Device, wanted: set[str], update: UpdateView | None) -> Row:
    row = dict.fromkeys(DEVICE_COLUMNS, Text())
    row["device"], row["state"] = Text(device.name), _state(device.online)
    row["students"] = Text(", ".join(map(str, device.students)))
    if device.info:
        row["engine"] = Text(", ".join(sorted({f"{s.engine} {s.precision}" for s in device.info.students})))
        if wanted and device.info.deployment not in wanted:
            row["students"] = Text(f"{row['students']} of {device.info.deployment[:8]}!", style="bold red")
    if update:
        row["update"] = Text(update.text, style="red" if update.error else "")
    seen = device.telemetry if device.online else None
    if seen is not None:
        row |= _readings(seen)
    return row


def _readings(seen: NodeTelemetry) -> Row:
    temperature = "" if seen.temperature_c is None else f"{seen.temperature_c:.0f} °C"
    if seen.throttled:
        temperature = f"{temperature} throttled".strip()
    latency = "" if seen.student_ms_p50 is None else f"{seen.student_ms_p50:.2f}/{seen.student_ms_p95 or 0:.2f} ms"
    return {
        "p50/p95": Text(latency),
        "answered": Text(str(seen.frames_answered)),
        "dropped": Text(str(seen.frames_dropped), style="yellow" if seen.frames_dropped else ""),
        "CPU": Text(f"{seen.cpu_percent:.0f} %"),
        "memory": Text(f"{seen.memory_rss_bytes / 2**20:.0f} MiB"),
        "temp": Text(temperature, style="bold red" if seen.throttled else ""),
        "power": Text(_power(seen)),
    }


def _power(seen: NodeTelemetry) -> str:
    """Watts of the board; with ~ what the agent is estimated to add to it."""
    if seen.power_w is None:
        return ""
    return f"{'~' if seen.power_source == 'estimated' else ''}{seen.power_w:.1f} W"


def _sources(listener: FleetListener, now: float) -> Table:
    rows = []
    for name, traffic in sorted(listener.sources.items()):
        last = traffic.last
        answer = "abandoned"
        if last.class_index is not None:
            answer = f"{last.class_name} {last.probabilities[last.class_index]:.0%}"
        row = {"source": name, "answers/s": f"{traffic.answers_per_s(now):.1f}", "last answer": answer}
        row["p50"] = f"{statistics.median(traffic.totals_ms):.1f} ms"
        row |= {result: str(traffic.results[result]) for result in ("complete", "degraded", "abandoned")}
        rows.append({column: Text(text) for column, text in row.items()})
    return _table("", rows, list(rows[0]))


def _table(title: str, rows: Sequence[Row], columns: Sequence[str]) -> Table:
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in RIGHT else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    return table


def _state(online: bool) -> Text:
    return Text("online", style="green") if online else Text("offline", style="bold red")


def _all_reported(listener: FleetListener) -> bool:
    online = {device.name for device in listener.roster.devices if device.online}
    return bool(listener.coordinators) and online <= set(listener.telemetry_at_s)
