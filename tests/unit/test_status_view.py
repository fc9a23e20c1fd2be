"""The fleet as a table: whole columns at any width of a terminal."""

import io
import time

import pytest
from rich.console import Console

from coordinator.fleet_listener import FleetListener
from coordinator.settings import ClientSettings
from coordinator.status_view import fleet_tables
from edge_agent.protocol.status import CoordinatorInfo, NodeInfo, NodeState, NodeTelemetry, StudentInfo

DEPLOYMENT = "55a3eeabc2a3b548"


def fleet() -> FleetListener:
    listener = FleetListener(ClientSettings())
    listener.coordinators_online["main"] = True
    listener.coordinators["main"] = CoordinatorInfo(
        session=1, coordinator_version="0.1.0", deployment=DEPLOYMENT, deployment_name="cifar10-2x-wrn-16-1",
        classes=("cat", "dog"), height=32, width=32, channels=3, students=2, deadline_ms=500,
    )  # fmt: skip
    student = StudentInfo(
        student=0, network="wrn-16-1", engine="ai-edge-litert 2.1.6", precision="int8", artifact="a.tflite", width=9,
        selftest_error=0.0,
    )  # fmt: skip
    info = NodeInfo(
        session=1, agent_version="0.1.0", deployment=DEPLOYMENT, students=(student,), machine="x", python="3"
    )
    listener.roster.state("pi-0", NodeState(state="online", session=1))
    listener.roster.info("pi-0", info)
    telemetry = NodeTelemetry(
        session=1, uptime_s=1, cpu_percent=3, memory_rss_bytes=64 << 20, memory_available_bytes=1, temperature_c=51.0,
        frames_received=9, frames_answered=9, frames_dropped=1, messages_refused=0, queue_length=0,
        student_ms_p50=0.2, student_ms_p95=0.25, student_ms_histogram=(9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        power_w=2.5, power_source="estimated",
    )  # fmt: skip
    listener.roster.telemetry("pi-0", telemetry)
    return listener


def lines(listener: FleetListener, width: int) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width).print(fleet_tables(listener, time.monotonic(), width))
    return output.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_columns_are_whole_or_away(width: int) -> None:
    shown = lines(fleet(), width)
    assert not any("…" in line for line in shown)
    assert max(map(len, shown)) <= width
    header, row = (next(line for line in shown if line.startswith(start)) for start in ("device", "pi-0"))
    assert header.split()[:3] == ["device", "state", "students"]
    assert "0.20/0.25 ms" in row
    assert ("memory" in header) is ("64 MiB" in row) is (width == 160)


def test_an_empty_site_says_so() -> None:
    shown = lines(FleetListener(ClientSettings()), 80)
    assert any("none seen" in line for line in shown)
    assert "no device seen" in shown
