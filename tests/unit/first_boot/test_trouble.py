"""Trouble is said where somebody looks: on the card, and at the site."""

import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from real_broker import MOSQUITTO, free_port, wait_until

from coordinator.provisioning.access_rules import Member, access_file
from coordinator.provisioning.authority import Authority
from coordinator.provisioning.broker_configuration import standalone_configuration
from edge_agent.device_problems import read_problems
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.link import Message
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.status import NodeInfo, NodeState, decode_status
from firmware_images.first_boot import trouble
from firmware_images.first_boot.device_files import PROBLEMS
from firmware_images.first_boot.problem_report import Report, report_problems
from firmware_images.first_boot.provision import DeviceFolders, Outcome, apply_card
from firmware_images.first_boot.trouble import lacks_deployment, plain_failure, room_problem, tell

from .cards import (
    NOW,
    PLAIN,
    PUBLIC_KEY,
    WIFI,
    apply,
    tls_card,
    writable,
)

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not on PATH: apt install mosquitto")


@contextmanager
def running_broker(authority: Authority, folder: Path) -> Iterator[int]:
    """A site's broker, with an observer who may read; its port."""
    server, port = authority.issue_server("broker", ["127.0.0.1"], NOW), free_port()
    contents = {
        "ca.pem": authority.certificate, "server.pem": server.certificate, "server.key": server.key,
        "revoked.pem": authority.revocation_list([], 1),
        "access": access_file("home", [Member("observer", ("viewer",))]),
        "mosquitto.conf": standalone_configuration("home", folder, port, as_root=os.geteuid() == 0),
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_text(content)
    (folder / "state").mkdir()
    log = folder / "broker.log"
    child = subprocess.Popen([MOSQUITTO or "", "-c", folder / "mosquitto.conf"], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: log.exists() and "running" in log.read_text(), "mosquitto runs")
        yield port
    finally:
        child.kill()
        child.wait()


def test_a_full_card_a_locked_card_and_a_full_data_partition_are_said_in_plain_words(tmp_path: Path) -> None:
    assert "the card is full" in plain_failure(OSError(errno.ENOSPC, "No space left on device"))
    assert "lock switch" in plain_failure(OSError(errno.EROFS, "Read-only file system"))
    assert "try another card" in plain_failure(subprocess.CalledProcessError(32, ["mount"]))
    full = Path("/dev/full")
    if full.exists():
        with pytest.raises(OSError, match="space") as caught, full.open("wb", buffering=0) as file:
            file.write(b"x")
        assert "the card is full" in plain_failure(caught.value)
    assert room_problem(tmp_path) == ""


def test_problems_reach_an_agent_that_runs_and_go_away_with_their_cause(folders: DeviceFolders) -> None:
    apply(folders, PLAIN)
    tell(folders, ["the data partition is full"])
    assert read_problems(folders.root / PROBLEMS.lstrip("/")) == ("the data partition is full",)
    assert not (folders.root / trouble.REPORT).exists()  # the agent tells it
    tell(folders, [])
    assert read_problems(folders.root / PROBLEMS.lstrip("/")) == ()


def test_a_device_lacks_a_deployment_unless_its_site_can_send_one(folders: DeviceFolders) -> None:
    apply(folders, PLAIN)
    assert lacks_deployment(folders)
    apply(folders, PLAIN + f'[updates]\ntrusted_keys = "{PUBLIC_KEY}"\n')
    assert not lacks_deployment(folders)
    apply(folders, PLAIN + f'[role]\nname = "coordinator"\n[updates]\ntrusted_keys = "{PUBLIC_KEY}"\n')
    assert lacks_deployment(folders)
    apply(folders, PLAIN.replace("= 2", '= "none"') + '[camera]\nkind = "v4l2"\n')
    assert not lacks_deployment(folders)


@pytest.mark.parametrize("broken", ['[device]\nname = "Pi A"\n', "[device\n", "", '[device]\nname = "pi-a"\n'])
def test_a_card_that_does_not_say_whom_to_tell_leaves_no_reporter(folders: DeviceFolders, broken: str) -> None:
    (folders.card / "nonn-edge.toml").write_text(broken)
    tell(folders, ["something"])
    assert not (folders.root / trouble.REPORT).exists()


@needs_mosquitto
def test_a_fresh_device_with_a_wrong_card_tells_its_site_over_tls(
    authority: Authority, folders: DeviceFolders, tmp_path: Path
) -> None:
    """A card with a wrong country and all the rest right: the device is online, runs nothing and says why."""
    with running_broker(authority, tmp_path) as port:
        text = tls_card(authority, wifi=WIFI.replace('"DE"', '"XX"'))
        text = text.replace('host = "hub.local"', f'host = "127.0.0.1"\nport = {port}\n')
        (folders.card / "nonn-edge.toml").write_text(text)
        applied = apply_card(folders, writable, NOW)
        assert applied.outcome is Outcome.REFUSED
        tell(folders, applied.problems)
        written = (folders.root / trouble.REPORT / "report.json").read_text()
        report = Report.model_validate_json(written.replace('"/run/', f'"{folders.root}/run/'))
        observer = authority.issue_client("observer", NOW)
        files = {"ca_file": authority.certificate, "certificate_file": observer.certificate, "key_file": observer.key}
        for name, content in files.items():
            (tmp_path / name).write_text(content)
        settings = BrokerSettings.model_validate(
            {"host": "127.0.0.1", "port": port, **{name: tmp_path / name for name in files}}
        )
        link = MqttLink(settings, "observer", [("nonn/1/home/node/pi-a/#", 1)])
        stop = threading.Event()
        problems = folders.root / PROBLEMS.lstrip("/")
        reporter = threading.Thread(target=report_problems, args=(report, problems, stop.is_set))
        reporter.start()
        seen: dict[str, bytes] = {}
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and len(seen) < 2:
            seen |= {m.topic.rsplit("/", 1)[1]: m.payload for m in link.poll(0.2) if isinstance(m, Message)}
        stop.set()
        reporter.join()
        link.close()
    info = decode_status(NodeInfo, seen["info"])
    assert info.students == ()
    assert info.problems == ('[wifi] country = "XX": no such country; expected an ISO 3166 code such as DE',)
    assert decode_status(NodeState, seen["state"]).state == "online"
