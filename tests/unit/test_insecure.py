"""Plain MQTT beyond this machine: refused unless asked for, and red wherever somebody looks."""

import io
import time
from argparse import Namespace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError
from rich.console import Console

from coordinator.cli import main
from coordinator.fleet_listener import FleetListener
from coordinator.roster import Roster
from coordinator.security_checks import INSECURE, check_device_certificates, check_encryption
from coordinator.settings import ClientSettings
from coordinator.status_view import fleet_tables
from coordinator.web.snapshot import Snapshot
from coordinator.web.view import PageView
from edge_agent.console.settings import load_settings
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.status import NodeInfo, NodeState

RED = "\x1b[1;31m"
NOW = datetime.now(UTC)


def node(insecure: bool | None = None, until: datetime | None = None) -> Roster:
    roster = Roster()
    info = NodeInfo(
        session=1, agent_version="0", deployment="", students=(), machine="", python="", insecure=insecure,
        certificate_until=until,
    )  # fmt: skip
    roster.info("pi-0", info)
    roster.state("pi-0", NodeState(state="online", session=1))
    return roster


@pytest.mark.parametrize("host", ["broker.local", "192.168.1.2", "0.0.0.0"])
def test_a_plain_broker_elsewhere_needs_a_word(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValidationError, match="without TLS"):
        BrokerSettings(host=host)
    assert BrokerSettings(host=host, insecure=True).is_exposed
    assert main(["status", "--broker-host", host]) == 78
    assert "or --insecure where anybody on that network may read" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_none(host: str) -> None:
    assert not BrokerSettings(host=host).is_exposed


def test_it_can_stand_in_file_environment_and_flag() -> None:
    environ = {"NONN_BROKER_HOST": "hub.local", "NONN_BROKER_INSECURE": "true"}
    assert load_settings(ClientSettings, Namespace(config=None), environ).broker.insecure


def screen(listener: FleetListener) -> str:
    output = io.StringIO()
    Console(file=output, force_terminal=True, width=120, color_system="standard").print(
        fleet_tables(listener, time.monotonic(), 100)
    )
    return output.getvalue()


def test_status_and_watch_show_it_in_red() -> None:
    listener = FleetListener(ClientSettings(broker=BrokerSettings(host="hub.invalid", insecure=True)))
    line = next(line for line in screen(listener).splitlines() if "INSECURE" in line)
    assert line.startswith(RED)
    safe = FleetListener(ClientSettings())
    assert "INSECURE" not in screen(safe)
    safe.roster = node(insecure=True)
    line = next(line for line in screen(safe).splitlines() if "INSECURE" in line)
    assert line.startswith(RED)
    assert "pi-0" in line


def test_status_warns_of_certificates_that_run_out() -> None:
    listener = FleetListener(ClientSettings())
    listener.roster = node(until=NOW + timedelta(days=59))
    assert "pi-0: certificate runs out on" in screen(listener)
    listener.roster = node(until=NOW + timedelta(days=61))
    assert "certificate" not in screen(listener)


def test_doctor_shows_it_and_names_the_way_out() -> None:
    exposed = BrokerSettings(host="hub.local", insecure=True)
    found = check_encryption(exposed, node(insecure=True).devices)
    assert [finding.check for finding in found] == [INSECURE, INSECURE]
    assert "nonn-coordinator init" in found[0].next_step
    assert check_encryption(BrokerSettings(), node().devices) == []
    warned = check_device_certificates(node(until=NOW - timedelta(days=1)).devices, NOW)
    assert [finding.level for finding in warned] == ["FAIL"]


def test_the_dashboard_is_told() -> None:
    def snapshot(roster: Roster) -> Snapshot:
        return Snapshot(
            serial=1, taken_s=0.0, connected=True, deployment="", sources=(), devices=tuple(roster.devices), updates={}
        )

    assert PageView(lambda _: None, is_exposed=True).render(snapshot(node()))["insecure"] == ["coordinator"]
    assert PageView(lambda _: None).render(snapshot(node(insecure=True)))["insecure"] == ["pi-0"]
    assert PageView(lambda _: None).render(snapshot(node()))["insecure"] == []
