"""From a card's settings to the files of agent, coordinator, broker and Wi-Fi."""

import subprocess
from pathlib import Path

import pytest
from real_broker import MOSQUITTO, OWN_RIGHTS, free_port

from coordinator.provisioning.authority import Authority
from coordinator.settings import CoordinatorSettings
from edge_agent.console.settings import load_settings
from edge_agent.console.update_settings import read_trusted_keys
from edge_agent.settings import AgentSettings
from firmware_images.first_boot import device_files, provision
from firmware_images.first_boot.card_settings import parse_card
from firmware_images.first_boot.provision import DeviceFolders, Outcome, apply_card

from .cards import NOW, PLACES, PLAIN, PUBLIC_KEY, WIFI, apply, hub_card, tls_card, writable

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not on PATH: apt install mosquitto")


def test_the_agents_file_is_one_that_the_agent_reads(authority: Authority, folders: DeviceFolders) -> None:
    import argparse

    apply(folders, tls_card(authority))
    config = folders.root / "etc/nonn-edge/agent.toml"
    settings = load_settings(AgentSettings, argparse.Namespace(config=config), {})
    assert (settings.device, settings.students, settings.broker.port) == ("pi-a", (0,), 8883)
    assert settings.broker.key_file == Path("/etc/nonn-edge/tls/device.key")


def test_trusted_keys_turn_updates_on_and_a_first_deployment_may_come_over_the_network(folders: DeviceFolders) -> None:
    import argparse

    text = PLAIN + f'[updates]\ntrusted_keys = """\n{PUBLIC_KEY}\n"""\n[role]\nname = "both"\n'
    (folders.card / "nonn-edge.toml").write_text(text)
    config = argparse.Namespace(config=folders.root / "etc/nonn-edge/agent.toml")
    assert apply_card(folders, writable, NOW, has_deployment=False).outcome is Outcome.APPLIED
    settings = load_settings(AgentSettings, config, {})
    assert (settings.deployment, settings.updates.store) == (None, Path("/var/lib/nonn-edge/agent"))
    keys = folders.root / "etc/nonn-edge/trusted-keys"
    assert [key.comment for key in read_trusted_keys(keys).keys.values()] == ["release"]
    # A deployment that comes with the card later is the agent's first one; nothing was edited for it.
    assert apply_card(folders, writable, NOW, has_deployment=True).outcome is Outcome.APPLIED
    assert load_settings(AgentSettings, config, {}).deployment == Path("/var/lib/nonn-edge/deployment")
    assert apply_card(folders, writable, NOW, has_deployment=True).outcome is Outcome.UNCHANGED
    config.config = folders.root / "etc/nonn-edge/coordinator.toml"
    assert load_settings(CoordinatorSettings, config, {}).updates.store == Path("/var/lib/nonn-edge/coordinator")


@pytest.mark.parametrize(("student", "expected"), [("3", (3,)), ("[0, 2]", (0, 2)), ('"auto"', "auto"), ('"none"', ())])
def test_students_and_camera_reach_the_agent_as_the_card_says(
    folders: DeviceFolders, student: str, expected: tuple[int, ...] | str
) -> None:
    import argparse

    text = PLAIN.replace("student = 2", f"student = {student}") + '[camera]\nkind = "v4l2"\ndevice = "/dev/video1"\n'
    assert apply(folders, text) is Outcome.APPLIED
    again = parse_card((folders.card / "nonn-edge.toml").read_bytes(), PLACES)
    assert again == parse_card(text.encode(), PLACES)
    config = argparse.Namespace(config=folders.root / "etc/nonn-edge/agent.toml")
    settings = load_settings(AgentSettings, config, {})
    assert settings.students == expected
    assert (settings.camera.source, settings.camera.location) == ("pi-a", "/dev/video1")


def test_keys_and_passwords_are_not_for_everybody(authority: Authority, folders: DeviceFolders) -> None:
    apply(folders, tls_card(authority, wifi=WIFI))
    secrets = ["etc/nonn-edge/tls/device.key", device_files.WIFI_CONFIG, f"{provision.STATE_FOLDER}/secrets.json"]
    for path in secrets:
        assert (folders.root / path).stat().st_mode & 0o007 == 0, path


def test_wifi_names_and_passwords_survive_quotes_and_umlauts(folders: DeviceFolders) -> None:
    apply(folders, PLAIN + WIFI)
    text = (folders.root / device_files.WIFI_CONFIG).read_text()
    name = "K\u00fcche".encode().hex()
    assert f"ssid={name}\n" in text
    assert 'psk="open sesame " \\"\n' in text
    assert text.startswith("country=DE\n")


@pytest.mark.parametrize(
    ("insecure", "listener"), [("", "listener 1883 127.0.0.1"), ("[broker]\ninsecure = true\n", "listener 1883")]
)
def test_a_plain_broker_listens_on_loopback_unless_the_card_says_insecure(
    folders: DeviceFolders, insecure: str, listener: str
) -> None:
    apply(folders, f'[device]\nname = "hub"\n[role]\nname = "coordinator"\n{insecure}')
    assert listener in (folders.root / device_files.BROKER_CONFIG).read_text().splitlines()
    assert not (folders.root / device_files.AGENT_CONFIG).exists()


@needs_mosquitto
def test_mosquitto_starts_with_the_configuration_of_a_coordinators_card(
    authority: Authority, folders: DeviceFolders, tmp_path: Path
) -> None:
    apply(folders, hub_card(authority))
    text = (folders.root / device_files.BROKER_CONFIG).read_text().replace(" /etc/", f" {folders.root}/etc/")
    config = tmp_path / "mosquitto.conf"
    state = f"persistence_location {tmp_path}/\n{OWN_RIGHTS}"
    config.write_text(text.replace("listener 8883", f"listener {free_port()} 127.0.0.1") + state)
    broker = subprocess.Popen([MOSQUITTO or "", "-c", config], stderr=subprocess.PIPE, text=True)
    assert broker.stderr is not None
    said = ""
    try:
        # The last line of a start, or the end of the output of a broker that refused its configuration.
        while not said.endswith("running\n") and (line := broker.stderr.readline()):
            said += line
    finally:
        broker.kill()  # mosquitto forgets a SIGTERM that comes right after its start
        broker.communicate()
    assert said.endswith("running\n"), said
    assert "Error" not in said
