"""systemd hears of the coordinator and of waiting clocks, and only on progress."""

import logging
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from coordinator.heartbeat import OVERDUE_S, Heartbeat
from coordinator.provisioning.authority import Authority
from edge_agent.console.own_certificate import certificate_validity, wait_for_clock
from edge_agent.console.service_notifier import ServiceNotifier
from edge_agent.protocol.broker import BrokerSettings


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "6000000")
        yield channel


def heard(channel: socket.socket) -> list[str]:
    lines = []
    while True:
        try:
            lines.append(channel.recv(1000).decode().splitlines()[0])
        except BlockingIOError:
            return lines


def test_the_watchdog_is_fed_while_no_frame_is_overdue(systemd: socket.socket) -> None:
    desk = SimpleNamespace(deadline=None, counts={"frames_opened": 3}, open_frames=1)
    desk.next_deadline = lambda: desk.deadline
    heart = Heartbeat(lambda: desk, ServiceNotifier())  # type: ignore[arg-type,return-value]
    heart.tick(100.0)
    assert heard(systemd) == ["READY=1", "WATCHDOG=1"]
    heart.tick(101.0)
    assert heard(systemd) == []
    desk.deadline = 102.0
    heart.tick(102.5)
    assert heard(systemd) == ["WATCHDOG=1"]
    heart.tick(102.0 + OVERDUE_S + 1)
    assert heard(systemd) == []


def test_a_program_waits_for_a_clock_that_its_certificate_counts_at(
    tmp_path: Path, systemd: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    today = datetime.now(UTC)
    issued = Authority.create("home", today).issue_client("pi-0", today)
    (tmp_path / "ca.pem").write_text("")
    (tmp_path / "own.pem").write_text(issued.certificate)
    broker = BrokerSettings(
        host="hub.local", ca_file=tmp_path / "ca.pem", certificate_file=tmp_path / "own.pem", key_file=tmp_path / "k"
    )
    clock = [datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)]

    def sleep(_seconds: float) -> None:
        clock.append(clock[-1] + timedelta(seconds=1) if len(clock) < 4 else today)

    with caplog.at_level(logging.INFO):
        wait_for_clock(broker, lambda: False, lambda: clock[-1], sleep)
    assert "the clock shows 1970-01-01 00:00, our certificate counts from" in caplog.text
    assert caplog.text.count("waiting for time synchronisation") == 1
    assert "going on" in caplog.text
    assert heard(systemd).count("WATCHDOG=1") == 4
    caplog.clear()
    wait_for_clock(broker, lambda: False, lambda: today + timedelta(days=3000), sleep)
    assert "ran out on" in caplog.text
    assert "nonn-coordinator device renew" in caplog.text


def test_without_a_certificate_nobody_waits(tmp_path: Path) -> None:
    wait_for_clock(
        BrokerSettings(), lambda: False, lambda: datetime(1970, 1, 1, tzinfo=UTC), lambda _: pytest.fail("slept")
    )
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert certificate_validity(tmp_path / "broken.pem") is None
    assert certificate_validity(tmp_path / "absent.pem") is None
