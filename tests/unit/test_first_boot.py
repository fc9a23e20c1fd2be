import errno
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_broker import MOSQUITTO, OWN_RIGHTS, free_port, wait_until

from coordinator.provisioning.access_rules import Member, access_file
from coordinator.provisioning.authority import Authority
from coordinator.provisioning.broker_configuration import standalone_configuration
from coordinator.settings import CoordinatorSettings
from edge_agent.console.settings import load_settings
from edge_agent.console.update_settings import read_trusted_keys
from edge_agent.device_problems import read_problems
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.device_card import APPLIED, CARD_FILE
from edge_agent.protocol.link import Message
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.status import NodeInfo, NodeState, decode_status
from edge_agent.settings import AgentSettings
from firmware_images.cli import main
from firmware_images.first_boot import device_files, provision, trouble
from firmware_images.first_boot.card_deployment import DeploymentProblemError, install_card_deployment
from firmware_images.first_boot.card_reader import CardProblemsError
from firmware_images.first_boot.card_settings import Places, parse_card
from firmware_images.first_boot.card_template import card_template, wiped_card
from firmware_images.first_boot.certificate_dates import validity
from firmware_images.first_boot.clock import SAVED_CLOCK, earliest_time
from firmware_images.first_boot.device_files import PROBLEMS
from firmware_images.first_boot.growth import GrowthError, stretch_entry
from firmware_images.first_boot.problem_report import Report, report_problems
from firmware_images.first_boot.provision import DeviceFolders, Outcome, apply_card, known_places, write_problems
from firmware_images.first_boot.trouble import lacks_deployment, plain_failure, room_problem, tell
from firmware_images.partition_table import MIB, lay_out, read_extents, sfdisk_script

TINY = Path(__file__).parent.parent / "fixtures/tiny"
PLACES = Places({"DE", "FR"}.__contains__, {"UTC", "Europe/Berlin"}.__contains__)
NOW = datetime.now(UTC)
PLAIN = '[device]\nname = "pi-a"\nstudent = 2\n[broker]\nhost = "10.0.0.1"\ninsecure = true\n'
PUBLIC_KEY = "ed25519 " + "A" * 43 + "= release"
WIFI = '[wifi]\nssid = "K\u00fcche"\npsk = "open sesame \\" \\\\"\ncountry = "DE"\n'


needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not on PATH: apt install mosquitto")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("home", NOW)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: every write here is followed by two fsyncs."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def folders(memory: Path) -> DeviceFolders:
    card, root = memory / "card", memory / "root"
    card.mkdir()
    (root / "etc").mkdir(parents=True)
    zones = root / "usr/share/zoneinfo"
    (zones / "Europe").mkdir(parents=True)
    (zones / "iso3166.tab").write_text("# comment\nDE\tGermany\nFR\tFrance\n")
    for zone in ("UTC", "Europe/Berlin"):
        (zones / zone).write_bytes(b"TZif")
    return DeviceFolders(card, root, owners=False)


@contextmanager
def writable() -> Iterator[None]:
    yield


def tls_card(authority: Authority, name: str = "pi-a", **tables: str) -> str:
    identity = authority.issue_client(name, NOW, days=30)
    pem = {"ca": authority.certificate, "cert": identity.certificate, "key": identity.key}
    broker = "".join(f'{key} = """\n{text}"""\n' for key, text in pem.items())
    return f'[device]\nname = "{name}"\nstudent = 0\n[broker]\nhost = "hub.local"\n{broker}' + "".join(tables.values())


def hub_card(authority: Authority) -> str:
    """A card of a device that is agent, coordinator and broker."""
    server = authority.issue_server("hub", ["127.0.0.1"], NOW)
    texts = {
        "cert": server.certificate, "key": server.key,
        "acl": access_file("home", [Member("hub", ("device", "coordinator"), "main")]),
        "crl": authority.revocation_list([], 1),
    }  # fmt: skip
    table = "[broker_server]\n" + "".join(f'{key} = """\n{text}"""\n' for key, text in texts.items())
    return tls_card(authority, "hub", role='[role]\nname = "both"\n', server=table)


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


def apply(folders: DeviceFolders, text: str | None = None) -> Outcome:
    if text is not None:
        (folders.card / "nonn-edge.toml").write_bytes(text.encode())
    applied = apply_card(folders, writable, NOW)
    write_problems(folders, writable, applied.problems)
    return applied.outcome


def error_text(folders: DeviceFolders) -> str:
    return (folders.card / "nonn-edge-error.txt").read_bytes().decode()


# --- what a card may say


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[device\n", "not valid TOML: "),
        ("", "[device] name: missing; expected letters a-z, digits and -"),
        (PLAIN.replace("pi-a", "Pi A"), '[device] name = "Pi A": expected letters a-z'),
        (PLAIN.replace("student = 2\n", ""), "[device] student: missing"),
        (PLAIN.replace("= 2", "= -1"), "[device] student = -1: expected the index"),
        (PLAIN.replace("= 2", "= true"), "[device] student = True"),
        (PLAIN.replace("= 2", "= [1, 1]"), "[device] student = [1, 1]"),
        (PLAIN.replace("= 2", '= "none"'), "this device would have nothing to do"),
        (PLAIN + '[camera]\nkind = "v4l2"\ndevice = "camera"\n', "expected a path such as /dev/video0"),
        (PLAIN + '[camera]\nkind = "v4l2"\nframes_per_s = 0\n', "expected a number above 0, at most 240"),
        (PLAIN.replace('host = "10.0.0.1"\n', ""), "[broker] host: missing"),
        (PLAIN.replace("insecure = true\n", ""), "no ca, cert and key for 10.0.0.1"),
        (PLAIN + "port = 99999\n", "[broker] port = 99999: expected a number from 1 to 65535"),
        (PLAIN + 'ca = "nonsense"\n', "[broker] ca: expected PEM text"),
        (PLAIN + '[wifi]\nssid = "x"\npsk = "longenough"\ncountry = "XX"\n', 'country = "XX": no such country'),
        (PLAIN + '[wifi]\nssid = "x"\npsk = "longenough"\ncountry = "germany"\n', "two capital letters such as DE"),
        (PLAIN + '[wifi]\nssid = "x"\npsk = "longenough"\n', "[wifi] country: missing"),
        (PLAIN + '[wifi]\npsk = "longenough"\ncountry = "DE"\n', "[wifi] ssid: expected the network's name"),
        (PLAIN + '[wifi]\nssid = "x"\npsk = "short"\ncountry = "DE"\n', "[wifi] psk: expected 8 to 63"),
        (PLAIN + '[time]\nzone = "Mars/Olympus"\n', 'zone = "Mars/Olympus": no such zone'),
        (PLAIN + '[role]\nname = "boss"\n', 'name = "boss": expected one of agent, coordinator, both'),
        (PLAIN + '[ssh]\nauthorized_key = "hunter2"\n', "expected one line such as ssh-ed25519"),
        (PLAIN + '[updates]\ntrusted_keys = "ed25519 short"\n', '"ed25519 short" is no public key; expected lines'),
        (PLAIN + '[camera]\nkind = "eye"\n', "expected one of none, v4l2, picamera2"),
        (PLAIN + "[wlan]\n", "[wlan]: no such table; expected one of broker"),
        (PLAIN + '[time]\nzome = "UTC"\n', "[time] zome: no such setting; expected one of zone"),
        ("device = 3\n" + PLAIN.replace('[device]\nname = "pi-a"\nstudent = 2\n', ""), "[device]: expected a table"),
        (
            PLAIN + '[broker_server]\ncert = "-----BEGIN CERTIFICATE-----x-----END "\n',
            "expected cert, key, acl and crl",
        ),
    ],
)
def test_each_mistake_on_a_card_is_named_where_it_stands(text: str, expected: str) -> None:
    with pytest.raises(CardProblemsError) as caught:
        parse_card(text.encode(), PLACES)
    assert any(expected in problem for problem in caught.value.problems), caught.value.problems


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(CardProblemsError) as caught:
        parse_card(b'[device]\nname = "A B"\nstudent = 999\n[time]\nzone = "x"\n[broker]\nhost = "h"\n', PLACES)
    assert len(caught.value.problems) == 4


def test_windows_line_ends_and_a_byte_order_mark_are_fine() -> None:
    settings = parse_card(b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(), PLACES)
    assert settings.name == "pi-a"


@given(st.binary(max_size=400))
def test_garbage_raises_nothing_but_card_problems(content: bytes) -> None:
    with pytest.raises(CardProblemsError):
        parse_card(content, PLACES)


TABLES = st.sampled_from(["device", "broker", "wifi", "time", "role", "ssh", "camera", "x"])
KEYS = st.sampled_from(["name", "student", "host", "port", "psk", "ssid", "insecure", "key"])
SCALARS = st.one_of(st.integers(), st.booleans(), st.text('abc"\\ \x7f\u00fc', max_size=9), st.lists(st.integers()))


@given(st.dictionaries(TABLES, st.one_of(SCALARS, st.dictionaries(KEYS, SCALARS))))
def test_any_shape_of_document_is_parsed_or_refused(document: dict[str, object]) -> None:
    def line(key: str, value: object) -> str:
        return f"{key} = {json.dumps(value)}\n".replace("\x7f", "\\u007f")

    flat = "".join(line(name, value) for name, value in document.items() if not isinstance(value, dict))
    tables = [(name, value) for name, value in document.items() if isinstance(value, dict)]
    text = flat + "".join(f"[{name}]\n" + "".join(line(k, v) for k, v in table.items()) for name, table in tables)
    with suppress(CardProblemsError):
        parse_card(text.encode(), PLACES)


def test_the_template_of_a_fresh_image_lacks_the_name_and_a_decision_on_encryption() -> None:
    with pytest.raises(CardProblemsError) as caught:
        parse_card(card_template("agent").encode(), PLACES)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ['[device] name = ""', "[broker]"]


# --- what is left on the card


def test_a_wiped_card_says_the_same_without_its_secrets(authority: Authority) -> None:
    text = tls_card(authority, wifi=WIFI, time='[time]\nzone = "Europe/Berlin"\n').encode()
    settings = parse_card(text, PLACES)
    wiped = wiped_card(settings, len(text))
    again = parse_card(wiped, PLACES)
    assert again.wifi is not None
    assert settings.wifi is not None
    assert (again.broker.key, again.wifi.psk) == (APPLIED, APPLIED)
    assert replace(again, broker=settings.broker, wifi=settings.wifi) == settings
    assert len(wiped) >= len(text)
    assert "open sesame" not in wiped.decode()


def test_a_wiped_card_of_a_hub_still_says_who_is_revoked(authority: Authority, folders: DeviceFolders) -> None:
    revoked = folders.root / "etc/nonn-edge/broker/revoked.pem"
    assert apply(folders, hub_card(authority)) is Outcome.APPLIED
    before = revoked.read_text()
    card = folders.card / CARD_FILE
    assert card.read_text().count(f'key = "{APPLIED}"') == 2
    card.write_text(card.read_text().replace("student = 0", "student = 1"))
    assert apply(folders) is Outcome.APPLIED
    assert revoked.read_text() == before


# --- from settings to files


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


# --- applied once, whatever happens


def test_settings_are_applied_once_and_secrets_leave_the_card(authority: Authority, folders: DeviceFolders) -> None:
    assert apply(folders, tls_card(authority, wifi=WIFI)) is Outcome.APPLIED
    left = (folders.card / "nonn-edge.toml").read_text()
    assert "PRIVATE KEY" not in left
    assert "sesame" not in left
    before = _snapshot(folders)
    assert apply(folders) is Outcome.UNCHANGED
    assert _snapshot(folders) == before


def test_an_edit_after_the_wipe_keeps_the_secrets_and_changes_the_rest(
    authority: Authority, folders: DeviceFolders
) -> None:
    apply(folders, tls_card(authority, wifi=WIFI))
    key = (folders.root / "etc/nonn-edge/tls/device.key").read_text()
    card = folders.card / "nonn-edge.toml"
    assert apply(folders, card.read_text().replace("student = 0", "student = 5")) is Outcome.APPLIED
    assert "students = [5]" in (folders.root / device_files.AGENT_CONFIG).read_text()
    assert (folders.root / "etc/nonn-edge/tls/device.key").read_text() == key
    assert "sesame" in (folders.root / device_files.WIFI_CONFIG).read_text()


def test_what_the_card_no_longer_asks_for_is_removed(folders: DeviceFolders) -> None:
    apply(folders, PLAIN + WIFI)
    apply(folders, PLAIN)
    assert not (folders.root / device_files.WIFI_CONFIG).exists()


def test_a_wiped_card_in_another_device_is_refused(authority: Authority, folders: DeviceFolders) -> None:
    text = tls_card(authority).encode()
    stolen = wiped_card(parse_card(text, PLACES), 0).decode()
    assert apply(folders, stolen) is Outcome.REFUSED
    assert "this device has not taken it" in error_text(folders)


def test_a_mistake_is_written_for_a_person_and_goes_away_with_the_mistake(folders: DeviceFolders) -> None:
    assert apply(folders, PLAIN.replace("= 2", "= 999")) is Outcome.REFUSED
    assert "student = 999" in error_text(folders)
    assert error_text(folders).count("\r\n") > 4  # readable in Notepad
    assert not (folders.root / device_files.AGENT_CONFIG).exists()
    assert apply(folders, PLAIN) is Outcome.APPLIED
    assert not (folders.card / "nonn-edge-error.txt").exists()


def test_a_mistake_in_an_edit_leaves_the_running_device_alone(folders: DeviceFolders) -> None:
    apply(folders, PLAIN)
    before = (folders.root / device_files.AGENT_CONFIG).read_text()
    assert apply(folders, PLAIN.replace("pi-a", "")) is Outcome.REFUSED
    assert (folders.root / device_files.AGENT_CONFIG).read_text() == before


def test_a_card_without_a_file_says_so_on_a_fresh_device_and_is_fine_later(folders: DeviceFolders) -> None:
    assert apply(folders) is Outcome.REFUSED
    assert "nonn-edge.toml is missing" in error_text(folders)
    apply(folders, PLAIN)
    (folders.card / "nonn-edge.toml").unlink()
    assert apply(folders) is Outcome.UNCHANGED


class PowerCut(BaseException):
    """Not an Exception: nothing on the way may catch it."""


def test_a_power_cut_before_any_write_leaves_a_device_that_finishes_at_the_next_start(
    authority: Authority, memory: Path, folders: DeviceFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tls_card(authority, wifi=WIFI)
    reference = _copy(folders, memory / "reference")
    apply(reference, text)
    expected = _snapshot(reference)
    real = provision.write_atomically
    cuts = 0
    for after in range(100):
        device = _copy(folders, memory / f"cut-{after}")
        writes = iter(range(after))

        def cut(path: Path, content: bytes, mode: int = 0o644, writes: Iterator[int] = writes) -> None:
            if next(writes, None) is None:
                raise PowerCut
            real(path, content, mode)

        monkeypatch.setattr(provision, "write_atomically", cut)
        with suppress(PowerCut):
            apply(device, text)
            break
        cuts += 1
        monkeypatch.setattr(provision, "write_atomically", real)
        assert apply(device) is Outcome.APPLIED
        assert _snapshot(device) == expected, f"after {after} writes"
    assert cuts >= 10  # the loop went through every write of an apply


@pytest.mark.parametrize("sectors", [0, 1, 2, 3])
def test_a_power_cut_in_the_middle_of_wiping_is_finished(
    authority: Authority, folders: DeviceFolders, sectors: int
) -> None:
    text = tls_card(authority)
    apply(folders, text)
    wiped = (folders.card / "nonn-edge.toml").read_bytes()
    torn = wiped[: sectors * 512] + text.encode()[sectors * 512 :]
    (folders.card / "nonn-edge.toml").write_bytes(torn)
    stamp = folders.state / "stamp.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "wiped": False}))
    assert apply(folders) is Outcome.APPLIED
    assert (folders.card / "nonn-edge.toml").read_bytes() == wiped
    assert apply(folders) is Outcome.UNCHANGED


# --- certificates and the clock


def test_a_certificate_tells_its_dates(authority: Authority) -> None:
    certificate = authority.issue_client("dates", NOW).certificate
    start, end = validity(certificate)
    command = ["openssl", "x509", "-noout", "-dates"]
    dates = subprocess.run(command, input=certificate, capture_output=True, text=True, check=True)
    expected = [ssl.cert_time_to_seconds(line.split("=")[1]) for line in dates.stdout.splitlines()]
    assert [start.timestamp(), end.timestamp()] == expected


@given(st.binary(max_size=60))
def test_garbage_in_place_of_a_certificate_is_a_value_error(der: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any of the module's messages)
        validity(ssl.DER_cert_to_PEM_cert(der))


def test_every_truncation_of_a_certificate_is_a_value_error(authority: Authority) -> None:
    der = ssl.PEM_cert_to_DER_cert(authority.certificate)
    for length in range(len(der)):
        with pytest.raises(ValueError):  # noqa: PT011
            validity(ssl.DER_cert_to_PEM_cert(der[:length]))


def test_a_certificate_that_ran_out_is_refused_with_its_date(authority: Authority, folders: DeviceFolders) -> None:
    (folders.card / "nonn-edge.toml").write_text(tls_card(authority))
    later = NOW + timedelta(days=400)
    applied = apply_card(folders, writable, later)
    assert applied.outcome is Outcome.REFUSED
    [problem] = applied.problems
    assert "ran out on" in problem
    assert "device renew pi-a" in problem


def test_a_clock_in_1970_does_not_refuse_a_certificate(authority: Authority, folders: DeviceFolders) -> None:
    (folders.card / "nonn-edge.toml").write_text(tls_card(authority))
    assert apply_card(folders, writable, datetime(1970, 1, 1, tzinfo=UTC)).outcome is Outcome.APPLIED


def test_the_clock_is_at_least_when_the_certificate_starts(authority: Authority, folders: DeviceFolders) -> None:
    assert earliest_time(folders.root).year == 1970
    apply(folders, tls_card(authority))
    start, _ = validity((folders.root / device_files.DEVICE_CERTIFICATE).read_text())
    assert earliest_time(folders.root) == start + timedelta(seconds=1)


def test_a_start_is_never_younger_than_anything_before_the_power_cut(folders: DeviceFolders) -> None:
    saved = folders.root / SAVED_CLOCK
    saved.parent.mkdir(parents=True)
    saved.touch()
    os.utime(saved, (NOW.timestamp(), NOW.timestamp()))
    assert earliest_time(folders.root) > NOW + timedelta(seconds=60)


def test_zones_cannot_leave_their_folder(folders: DeviceFolders) -> None:
    places = known_places(folders.root)
    assert places.is_zone("Europe/Berlin")
    assert not places.is_zone("../../../etc/passwd")
    assert not places.is_zone("/etc/passwd")
    assert not places.is_zone("Europe")


# --- a deployment on the card


def test_a_deployment_on_the_card_is_installed_once(folders: DeviceFolders) -> None:
    shutil.copytree(TINY, folders.card / "deployment")
    digest = hashlib.sha256((TINY / "manifest.json").read_bytes()).hexdigest()[:16]
    assert install_card_deployment(folders.card, folders.root) == digest
    installed = folders.root / "var/lib/nonn-edge/deployment"
    assert {path.name for path in installed.iterdir()} == {path.name for path in TINY.iterdir() if path.name[0] != "."}
    assert install_card_deployment(folders.card, folders.root) == ""


def test_a_damaged_deployment_is_refused_and_the_old_one_stays(folders: DeviceFolders) -> None:
    shutil.copytree(TINY, folders.card / "deployment")
    install_card_deployment(folders.card, folders.root)
    manifest = json.loads((TINY / "manifest.json").read_text())
    (folders.card / "deployment/manifest.json").write_text(json.dumps(manifest))
    (folders.card / "deployment/head.npz").write_bytes(b"short")
    with pytest.raises(DeploymentProblemError, match=r"deployment/head.npz is damaged \(5 bytes, expected"):
        install_card_deployment(folders.card, folders.root)
    installed = folders.root / "var/lib/nonn-edge/deployment"
    assert (installed / "head.npz").read_bytes() == (TINY / "head.npz").read_bytes()
    assert (installed / "manifest.json").read_bytes() == (TINY / "manifest.json").read_bytes()


def test_a_manifest_cannot_name_files_outside_of_its_folder(folders: DeviceFolders) -> None:
    (folders.card / "deployment").mkdir()
    entry = {"file": "../../etc/passwd", "size_bytes": 1, "sha256": "0" * 64}
    (folders.card / "deployment/manifest.json").write_text(json.dumps({"head": entry}))
    with pytest.raises(DeploymentProblemError, match="no plain file name"):
        install_card_deployment(folders.card, folders.root)


# --- growing


def test_the_last_entry_of_the_table_is_stretched_to_the_disks_end(tmp_path: Path) -> None:
    disk = _disk(tmp_path, 300)
    stretched = stretch_entry(disk, 3, 300 * MIB)
    assert stretched is not None
    assert read_extents(disk.read_bytes()[:512])[-1] == stretched
    assert stretched.start_bytes + stretched.size_bytes == 300 * MIB
    assert stretch_entry(disk, 3, 300 * MIB) is None


def test_another_partition_is_never_stretched(tmp_path: Path) -> None:
    disk = _disk(tmp_path, 300)
    before = disk.read_bytes()[:512]
    with pytest.raises(GrowthError, match="partition 2 is not the last one"):
        stretch_entry(disk, 2, 300 * MIB)
    assert disk.read_bytes()[:512] == before


# --- at the desk


def test_a_card_file_is_checked_at_the_desk_as_the_device_will(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "pi-a.toml"
    card.write_text(PLAIN)
    assert main(["check", str(card)]) == 0
    assert capsys.readouterr().out == "pi-a: role agent, student 2, broker 10.0.0.1:1883 (PLAIN)\n"
    card.write_text(PLAIN.replace("student", "stutend"))
    assert main(["check", str(card)]) == 65
    assert "[device] stutend: no such setting" in capsys.readouterr().err


def _disk(folder: Path, size_mib: int) -> Path:
    if shutil.which("sfdisk", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip("needs sfdisk")
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(size_mib * MIB)
    script = sfdisk_script(lay_out([("vfat", 48), ("ext4", 64), ("ext4", 33)]), "ed9eb007")
    subprocess.run(["sfdisk", "--quiet", disk], input=script.encode(), check=True, env={"PATH": "/usr/sbin:/sbin"})
    return disk


def _copy(folders: DeviceFolders, target: Path) -> DeviceFolders:
    shutil.copytree(folders.card, target / "card")
    shutil.copytree(folders.root, target / "root", symlinks=True)
    return DeviceFolders(target / "card", target / "root", owners=False)


def _snapshot(folders: DeviceFolders) -> dict[str, bytes]:
    """Every file of card and root: path -> content or link target."""
    found = {}
    for base in (folders.card, folders.root):
        for path in sorted(base.rglob("*")):
            if path.is_symlink():
                found[f"{base.name}/{path.relative_to(base)}"] = str(path.readlink()).encode()
            elif path.is_file():
                found[f"{base.name}/{path.relative_to(base)}"] = path.read_bytes()
    return found


def test_the_wiped_text_is_toml_whatever_the_strings(folders: DeviceFolders) -> None:
    settings = parse_card((PLAIN + WIFI).encode(), PLACES)
    assert tomllib.loads(wiped_card(settings, 0).decode())["wifi"]["ssid"] == "K\u00fcche"


# --- trouble, said where somebody looks


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
