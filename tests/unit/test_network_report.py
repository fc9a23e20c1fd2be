"""A device without a network, or without its broker, says so on the card, and takes it back."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from real_broker import free_port

from edge_agent.protocol.device_card import Wifi
from firmware_images.first_boot import network_report
from firmware_images.first_boot.card_settings import CardSettings, Places, parse_card
from firmware_images.first_boot.device_files import PROBLEMS
from firmware_images.first_boot.network_report import broker_problem, has_address, network_problem, note_on_card, watch
from firmware_images.first_boot.provision import ERROR_FILE, DeviceFolders

CARD = b'[device]\nname = "pi-a"\nstudent = 2\n[broker]\nhost = "127.0.0.1"\n'


@pytest.fixture
def settings() -> CardSettings:
    return parse_card(CARD, Places(lambda _: True, lambda _: True))


@pytest.fixture
def interfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/sys/class/net of a Pi that nobody gave an address."""
    monkeypatch.setattr(network_report, "has_address", lambda: False)
    for name, carrier in (("lo", "1"), ("eth0", "0")):
        plug(tmp_path, name, carrier)
    return tmp_path


def plug(interfaces: Path, name: str, carrier: str) -> None:
    (interfaces / name).mkdir(exist_ok=True)
    (interfaces / name / "carrier").write_text(carrier + "\n")


@contextmanager
def writable() -> Iterator[None]:
    yield


def test_a_missing_cable_and_a_silent_router_are_told_apart(settings: CardSettings, interfaces: Path) -> None:
    assert network_problem(settings, interfaces).startswith("no network: there is no cable")
    plug(interfaces, "eth0", "1")
    assert "is the router (DHCP) on?" in network_problem(settings, interfaces)


def test_a_cable_from_card_to_card_needs_no_router(settings: CardSettings, interfaces: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = replace(settings, broker=replace(settings.broker, port=server.getsockname()[1]))
        # A hub's broker is on the device itself: without a cable, it being there says nothing of the network.
        assert network_problem(here, interfaces).startswith("no network: there is no cable")
        plug(interfaces, "eth0", "1")
        assert network_problem(here, interfaces) == ""
    assert "is the router (DHCP) on?" in network_problem(here, interfaces)


def test_wifi_that_is_missing_locked_or_silent_is_told_apart(settings: CardSettings, interfaces: Path) -> None:
    wireless = replace(settings, wifi=Wifi("K\u00fcche", "(applied)", "DE"))
    assert "this device has no Wi-Fi" in network_problem(wireless, interfaces)
    (interfaces / "wlan0").mkdir()  # down: its carrier can't be read
    said = network_problem(wireless, interfaces)
    assert 'no connection to Wi-Fi "K\u00fcche"' in said
    assert "are ssid, psk and country in nonn-edge.toml right?" in said
    plug(interfaces, "wlan0", "1")
    assert "is the router (DHCP) on?" in network_problem(wireless, interfaces)


def test_a_broker_that_is_unknown_refuses_or_is_there(settings: CardSettings) -> None:
    assert has_address() or pytest.skip("this machine has no network")
    port = free_port()
    here = replace(settings.broker, port=port)
    assert f"no broker at 127.0.0.1:{port}" in network_problem(replace(settings, broker=here))
    assert "nowhere.invalid is not known on this network" in broker_problem(replace(here, host="nowhere.invalid"))
    with socket.create_server(("127.0.0.1", port)):
        assert network_problem(replace(settings, broker=here)) == ""


def test_the_card_is_written_when_the_trouble_changes_and_taken_back_at_the_end() -> None:
    troubles = ["no cable", "no cable", "no broker", "no broker", ""]
    noted: list[str] = []
    slept: list[float] = []
    watch(lambda: troubles.pop(0), noted.append, slept.append)
    assert noted == ["no cable", "no broker", ""]
    assert slept == [network_report.PERIOD_S] * 4
    watch(lambda: "", noted.append, slept.append)
    assert len(noted) == 3


def test_what_the_first_boot_found_stays_on_the_card(tmp_path: Path) -> None:
    folders = DeviceFolders(tmp_path / "card", tmp_path / "root", owners=False)
    listed = folders.root / PROBLEMS.lstrip("/")
    for folder in (folders.card, listed.parent):
        folder.mkdir(parents=True)
    listed.write_text("the data partition is full\n")
    told = folders.card / ERROR_FILE
    note_on_card(folders, "no network: there is no cable", writable)
    assert "- the data partition is full\r\n- no network: there is no cable\r\n" in told.read_bytes().decode()
    note_on_card(folders, "", writable)
    assert "no network" not in told.read_text()
    listed.unlink()
    note_on_card(folders, "", writable)
    assert not told.exists()


def test_a_card_that_cannot_be_written_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @contextmanager
    def locked() -> Iterator[None]:
        raise OSError(30, "Read-only file system")
        yield

    note_on_card(DeviceFolders(tmp_path, tmp_path, owners=False), "no network", locked)
    assert "is its lock switch on" in capsys.readouterr().out
