"""The boot test of two cards, with the cards' own programs on this machine in place of two emulated Pis."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from real_broker import MOSQUITTO, OWN_RIGHTS

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.student_slot import open_student
from firmware_images.boot_coordinator import HUB, HubSite
from firmware_images.boot_pair import MAC, NETWORKS, PARTNER, answer_alone, answer_together, came_from
from firmware_images.boot_run import BootReport, BootRun, BootTestOptions
from firmware_images.boot_site import SiteObserver
from firmware_images.cli import main
from firmware_images.first_boot.card_deployment import install_deployment
from firmware_images.first_boot.device_files import AGENT_CONFIG, BROKER_CONFIG, COORDINATOR_CONFIG
from firmware_images.first_boot.provision import DeviceFolders, Outcome, apply_card
from firmware_images.qemu_machine import Kernel, Plug, RunningMachine, qemu_command

KERNEL = Kernel(Path("kernel"), Path("initrd"), Path("tree.dtb"), "root=LABEL=R ro")
# mosquitto 2.0.11 on the hub's card.
LOG = """\
2026-11-28T23:27:57: New client connected from 127.0.0.1:39100 as nonn-agent-site-edge-hub-08 (p5, c1, k10, u'edge-hub').
2026-11-28T23:28:22: New client connected from 192.168.77.11:44414 as nonn-agent-site-edge-partner-68 (p5, c1, k10, u'edge-partner').
2026-11-28T23:29:26: New connection from fe80::5054:ff:fe6e:2:59250 on port 49817.
2026-11-28T23:29:26: New client connected from fe80::5054:ff:fe6e:2:59250 as nonn-agent-site-edge-partner-68 (p5, c1, k10, u'edge-partner').
"""  # noqa: E501 (as it is)


def test_the_brokers_log_says_from_where_a_card_came_last() -> None:
    assert came_from(LOG, PARTNER) == "fe80::5054:ff:fe6e:2"
    assert came_from(LOG, HUB) == "127.0.0.1"
    assert came_from(LOG, "edge-part") is None
    assert came_from("", PARTNER) is None


@pytest.mark.parametrize("machine", ["virt", "raspi3b"])
def test_a_card_on_a_cable_has_an_address_of_its_own_and_no_other_network(machine: str) -> None:
    def words(ports: dict[int, int] | None, plug: Plug | None) -> str:
        return " ".join(qemu_command(machine, KERNEL, Path("card"), Path("log"), 0, "", ports, plug))

    plug = Plug(4321, MAC[PARTNER])
    alone = words(None, plug)
    assert f"-netdev socket,id=n1,connect=127.0.0.1:4321 -device {'usb-net' if machine == 'raspi3b' else ''}" in alone
    assert f"netdev=n1,mac={MAC[PARTNER]}" in alone
    assert "-netdev user" not in alone
    assert "-nic none" not in alone
    assert "-netdev user,id=n0,hostfwd=tcp:127.0.0.1:4000-:22" in words({4000: 22}, plug)
    assert len(set(MAC.values())) == 2


def test_a_pair_without_students_or_on_an_unknown_network_is_refused(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["boot-test", "x.img", "--pair", "router"]) != 0
    said = capsys.readouterr().err
    assert "needs --deployment" in said or "missing programs" in said
    with pytest.raises(SystemExit):
        main(["boot-test", "x.img", "--pair", "nowhere", "--deployment", str(tiny)])
    error = capsys.readouterr().err
    assert all(network in error for network in ("router", "ipv6", "cable"))
    assert NETWORKS == ("router", "ipv6", "cable")


@contextmanager
def no_mount() -> Iterator[None]:
    yield


def provisioned(folder: Path, text: str, deployment: Path) -> Path:
    """What the first boot makes of a card; returns the device's root."""
    folders = DeviceFolders(folder / "card", folder / "root", owners=False)
    folders.card.mkdir(parents=True)
    zones = folders.root / "usr/share/zoneinfo"
    zones.mkdir(parents=True)
    (zones / "iso3166.tab").write_text("DE\tGermany\n")
    (zones / "UTC").write_bytes(b"TZif")
    (folders.card / "nonn-edge.toml").write_text(text)
    install_deployment(deployment, folders.root)
    assert apply_card(folders, no_mount, datetime.now(UTC), has_deployment=True).outcome is Outcome.APPLIED
    return folders.root


def program(module: str, root: Path, config: str) -> list[str]:
    """A program with the settings that the first boot wrote below `root`; the hub is on this machine."""
    settings = root / Path(config).name
    text = (root / config).read_text().replace('"/', f'"{root}/').replace(f"{HUB}.local", "127.0.0.1")
    settings.write_text(text)
    return [sys.executable, "-m", module, "run", "--config", str(settings)]


# The fastest of this machine's engines is another one, which rounds differently.
ENGINE = ["--engine", "tflite", "--precision", "int8"]


@contextmanager
def running(command: list[str], log: Path) -> Iterator[RunningMachine]:
    with RunningMachine(command, log) as machine:
        yield machine


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not on PATH: apt install mosquitto")
def test_two_cards_answer_together_and_one_alone_when_the_others_power_is_cut(tmp_path: Path, tiny: Path) -> None:
    site = HubSite(tmp_path, tiny)
    deployment = open_deployment(tiny)
    students = {HUB: [0], PARTNER: [student.index for student in deployment.manifest.students[1:]]}
    hub_root = provisioned(tmp_path / HUB, site.card(HUB, students[HUB], "--role", "both"), tiny)
    partner_root = provisioned(tmp_path / PARTNER, site.card(PARTNER, students[PARTNER]), tiny)
    broker = (hub_root / BROKER_CONFIG).read_text().replace(" /etc/", f" {hub_root}/etc/")
    broker = broker.replace(f"listener {site.port}", f"listener {site.port} 127.0.0.1")
    (hub_root / "mosquitto.conf").write_text(f"{broker}persistence_location {hub_root}/\n{OWN_RIGHTS}")
    options = BootTestOptions(tmp_path / "x.img", "virt", tmp_path, tiny, 60.0, 3, power_cut=False)
    report = BootReport("pair, this machine")
    with ExitStack() as stack:
        stack.enter_context(site)
        for number, command in enumerate([
            [MOSQUITTO or "", "-c", str(hub_root / "mosquitto.conf")],
            program("coordinator.cli", hub_root, COORDINATOR_CONFIG),
            [*program("edge_agent.cli", hub_root, AGENT_CONFIG), *ENGINE],
        ]):  # fmt: skip
            stack.enter_context(running(command, tmp_path / f"hub-{number}.log"))
        watched = SiteObserver(site.login(), HUB, "device")
        stack.callback(watched.close)
        hub, partner = (
            BootRun(
                options, report, tmp_path, tmp_path, KERNEL, deployment, site, observer,
                [open_student(deployment, index, "tflite", "int8", 1) for index in students[name]], None, None,
            )
            for name, observer in ((HUB, watched), (PARTNER, watched.beside(PARTNER)))
        )  # fmt: skip
        session = 0
        for when in ("first", "second"):
            command = [*program("edge_agent.cli", partner_root, AGENT_CONFIG), *ENGINE]
            with running(command, tmp_path / f"{when}.log") as machine:
                birth = partner.observer.wait_for_birth(session, time.monotonic() + 60)
                assert birth is not None, (tmp_path / f"{when}.log").read_text()
                session = birth.session
                answer_together([hub, partner], machine, when)
            if when == "first":
                answer_alone(hub, partner)
    assert report.failures == []
    assert report.facts["first: answers"] == report.facts["second: answers"] == {"complete": 6}
    assert report.facts["agent's power cut: answers"] == {"degraded": 3}
    assert hub.observer.students == {0}
    assert partner.observer.students == set(students[PARTNER])
