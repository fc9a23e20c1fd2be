"""The boot test of a coordinator's card, with the card's own programs on this machine in place of an emulated Pi."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from real_broker import MOSQUITTO, OWN_RIGHTS

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.status import CoordinatorInfo
from firmware_images.boot_answers import boot_images
from firmware_images.boot_coordinator import HUB, HubSite
from firmware_images.boot_hub import AGENT_BESIDE, agents_on_card
from firmware_images.boot_site import SITE, SiteObserver
from firmware_images.cli import main
from firmware_images.first_boot.card_deployment import install_deployment
from firmware_images.first_boot.card_settings import Places, parse_card
from firmware_images.first_boot.device_files import AGENT_CONFIG, BROKER_CONFIG, COORDINATOR_CONFIG
from firmware_images.first_boot.provision import DeviceFolders, Outcome, apply_card

WAIT_S = 60.0


@contextmanager
def no_mount() -> Iterator[None]:
    yield


@contextmanager
def card_programs(root: Path, port: int) -> Iterator[None]:
    """Broker and coordinator with the files that the first boot wrote below `root`; killed at the end."""
    settings = root / "coordinator.toml"
    settings.write_text((root / COORDINATOR_CONFIG).read_text().replace('"/', f'"{root}/'))
    broker = (root / BROKER_CONFIG).read_text().replace(" /etc/", f" {root}/etc/")
    broker = broker.replace(f"listener {port}", f"listener {port} 127.0.0.1")
    (root / "mosquitto.conf").write_text(f"{broker}persistence_location {root}/\n{OWN_RIGHTS}")
    commands = [
        [MOSQUITTO or "", "-c", str(root / "mosquitto.conf")],
        [sys.executable, "-m", "coordinator.cli", "run", "--config", str(settings)],
    ]
    with ExitStack() as stack:
        log = stack.enter_context((root / "programs.log").open("ab"))
        for command in commands:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def answered(observer: SiteObserver, deployment: Path) -> bool:
    """Send frames until one is answered by all students."""
    [image] = boot_images(open_deployment(deployment), 1)
    before, next_s = set(observer.predictions), 0.0

    def is_answered() -> bool:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + 0.5
            observer.send_frame(time.time_ns() // 1000, image)
        return any(observer.predictions[frame].result == "complete" for frame in observer.predictions.keys() - before)

    return observer.wait_until(is_answered, time.monotonic() + WAIT_S)


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not on PATH: apt install mosquitto")
def test_an_agent_elsewhere_joins_the_coordinator_of_a_card_and_finds_it_again_after_a_power_cut(
    tmp_path: Path, tiny: Path
) -> None:
    folders = DeviceFolders(tmp_path / "card", tmp_path / "root", owners=False)
    folders.card.mkdir()
    zones = folders.root / "usr/share/zoneinfo"
    zones.mkdir(parents=True)
    (zones / "iso3166.tab").write_text("DE\tGermany\n")
    (zones / "UTC").write_bytes(b"TZif")
    site = HubSite(tmp_path, tiny)
    text = site.card(HUB, [0, 1, 2], "--role", "coordinator")
    settings = parse_card(text.encode(), Places(lambda _: True, lambda _: True))
    assert (settings.role, settings.students, settings.site) == ("coordinator", (), SITE)
    (folders.card / "nonn-edge.toml").write_text(text)
    install_deployment(tiny, folders.root)
    assert apply_card(folders, no_mount, datetime.now(UTC)).outcome is Outcome.APPLIED
    assert not (folders.root / AGENT_CONFIG).exists()
    with site:
        site.start_agent(AGENT_BESIDE, [0, 1, 2])  # before there is a broker
        observer = SiteObserver(site.login(), AGENT_BESIDE, "coordinator")
        session = 0
        try:
            for _ in range(2):
                with card_programs(folders.root, site.port):
                    birth = observer.wait_for_birth(session, time.monotonic() + WAIT_S)
                    assert birth is not None, (folders.root / "programs.log").read_text()
                    assert isinstance(birth.info, CoordinatorInfo)
                    assert birth.info.deployment == open_deployment(tiny).id
                    assert answered(observer, tiny), (folders.root / "programs.log").read_text()
                    assert observer.devices_online == {AGENT_BESIDE}
                    assert agents_on_card(["inactive", ""], observer.devices_online) == []
                    session = observer.session
        finally:
            observer.close()
    assert list((tmp_path / AGENT_BESIDE / "store").iterdir())  # it took the site's deployment over into its own store


@pytest.mark.parametrize(
    ("said", "online", "words"),
    [
        (["active"], set(), "edge-agent.service is active"),
        ([], set(), "edge-agent.service is"),
        (["inactive", "/usr/bin/python3 /usr/bin/nonn-agent run"], set(), "an agent runs: /usr/bin/python3"),
        (["inactive", ""], {HUB}, f"{HUB} says that it runs an agent"),
    ],
)
def test_an_agent_on_a_coordinators_card_is_noticed(said: list[str], online: set[str], words: str) -> None:
    [problem] = agents_on_card(said, online)
    assert problem.startswith(words)


@pytest.mark.parametrize("flags", [["--camera"], ["--tvm-deployment", "x"]])
def test_what_only_an_agent_does_is_not_asked_of_a_coordinators_card(
    flags: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["boot-test", "x.img", "--role", "coordinator", "--deployment", str(tiny), *flags])
    said = capsys.readouterr().err
    assert code != 0
    assert "no agent runs on this card" in said or "missing programs" in said
