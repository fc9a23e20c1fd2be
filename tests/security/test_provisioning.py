"""init and device: what they write, what they refuse, and what a Pi makes of it."""

import errno
import json
import os
import ssl
import subprocess
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from secure_site import Site, run

from coordinator.provisioning import site_folder
from coordinator.provisioning.authority import Authority, Revoked
from coordinator.provisioning.ledger import RENEW_BEFORE
from coordinator.provisioning.site_folder import SiteFolder
from coordinator.security_checks import RENEW_BEFORE as RENEW_BEFORE_OF_DOCTOR
from edge_agent.console.exit_codes import ExitCode
from edge_agent.console.settings import load_settings
from edge_agent.console.update_settings import read_trusted_keys
from firmware_images.first_boot.card_settings import Places, parse_card
from firmware_images.first_boot.clock import earliest_time
from firmware_images.first_boot.device_files import BROKER_CONFIG, BROKER_FILES, Secrets, device_files, resolve_secrets

PLACES = Places({"DE"}.__contains__, {"UTC", "Europe/Berlin"}.__contains__)
NOW = datetime.now(UTC)


@pytest.fixture
def made(tmp_path: Path) -> Site:
    site = Site(tmp_path / "nonn-site", 8883)
    assert (
        run("init", site.folder, "--site", "attic", "--broker-host", "hub.local", "--broker-name", "192.168.1.5") == 0
    )
    return site


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nobody_else_can_read_a_key(made: Site) -> None:
    assert made.device("add", "pi-0") == 0
    holds_key = [path for path in made.folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert len(holds_key) == 6  # authority, deployments, broker, coordinator, operator, and the card
    for path in holds_key:
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert made.folder.stat().st_mode & 0o077 == 0


def test_a_second_init_changes_nothing_and_another_site_is_refused(
    made: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(made.folder)
    assert run("init", made.folder, "--site", "attic", "--broker-host", "hub.local") == 0
    assert run("init", made.folder, "--site", "cellar", "--broker-host", "hub.local") == ExitCode.CONFIGURATION
    assert "keys are never overwritten" in capsys.readouterr().err
    assert files(made.folder) == before


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").write_text("dear")
    assert run("init", tmp_path / "mine") == ExitCode.CONFIGURATION
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("number", range(0, 24, 3))
def test_a_full_disk_leaves_no_site_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_the_disk_after(number, monkeypatch)
    assert run("init", tmp_path / "nonn-site", "--broker-host", "hub.local") == ExitCode.IO_ERROR
    assert "No space left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", range(5))
def test_a_full_disk_adds_nobody_or_somebody_whole(made: Site, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fill_the_disk_after(number, monkeypatch)
    code = made.device("add", "pi-0", "--camera", "v4l2")
    monkeypatch.undo()
    names = [identity.name for identity in SiteFolder(made.folder).ledger.identities]
    assert code == ExitCode.IO_ERROR
    if "pi-0" in names:
        assert "PRIVATE KEY" in made.card("pi-0").read_text()
    else:
        assert made.device("add", "pi-0", "--camera", "v4l2") == 0


def fill_the_disk_after(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `number` files be written, then none."""
    real, written = site_folder.write_atomically, []

    def write(path: Path, content: bytes, mode: int = 0o644) -> None:
        if len(written) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        real(path, content, mode)

    monkeypatch.setattr(site_folder, "write_atomically", write)


# --- cards


@pytest.mark.parametrize("role", ["agent", "both", "coordinator"])
def test_a_card_is_what_the_first_boot_reads(made: Site, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONN_WIFI_PSK", 'open "sesame" \\')
    words = ["--students", "0,2", "--camera", "v4l2", "--source", "door"] if role != "coordinator" else []
    assert made.device(
        "add", "pi-0", "--role", role, *words, "--wifi-ssid", "Küche", "--wifi-country", "DE",
        "--time-zone", "Europe/Berlin",
    ) == 0  # fmt: skip
    card = parse_card(made.card("pi-0").read_bytes(), PLACES)
    assert (card.name, card.site, card.role, card.zone) == ("pi-0", "attic", role, "Europe/Berlin")
    assert card.wifi
    assert (card.wifi.ssid, card.wifi.psk) == ("Küche", 'open "sesame" \\')
    assert card.broker.host == ("hub.local" if role == "agent" else "127.0.0.1")
    assert card.trusted_keys.split() == (made.folder / "keys/trusted-keys").read_text().split()
    if role != "coordinator":
        assert card.students == (0, 2)
        assert card.camera
        assert card.camera.source == "door"
    if role == "agent":
        assert card.server is None
    else:
        assert card.server
        assert "user pi-0" in card.server.acl
        assert "BEGIN X509 CRL" in card.server.crl
        wanted = {file.path: file.content for file in device_files(card, resolve_secrets(card, Secrets()))}
        # The broker of an image is the one of init, which the tests of this folder attack, in another place.
        ours = (made.folder / "broker/nonn-edge.conf").read_text()
        assert wanted[BROKER_CONFIG] == ours.replace(str(made.folder / "broker"), f"/{BROKER_FILES}")
        lines = wanted[BROKER_CONFIG].splitlines()
        named = {line.split()[1].lstrip("/") for line in lines if f"/{BROKER_FILES}" in line}
        assert len(named) == 5
        assert named <= set(wanted)


def test_a_card_in_use_is_not_overwritten(made: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boot = tmp_path / "boot"
    boot.mkdir()
    (boot / "nonn-edge.toml").write_text("# the template of a fresh image\n")
    assert made.device("add", "pi-0", "--out", boot) == 0
    assert made.device("add", "pi-1", "--out", boot) != 0
    assert "is the card of a device already" in capsys.readouterr().err
    assert parse_card((boot / "nonn-edge.toml").read_bytes(), PLACES).name == "pi-0"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["add", "Pi_0"], "expected 1 to 63 of a-z"),
        (["add", "main"], "is a member of site attic already"),
        (["add", "pi-0", "--students", "none"], "this device would have nothing to do"),
        (["add", "pi-0", "--students", "0,0"], "is not auto, none or a list"),
        (["add", "pi-0", "--wifi-ssid", "x"], "--wifi-country: expected a code"),
        (["add", "pi-0", "--wifi-ssid", "x", "--wifi-country", "DE"], "8 to 63 plain characters"),
        (["add", "pi-0", "--wifi-ssid", "x", "--wifi-country", "Germany"], "two capital letters such as DE"),
        (["renew", "pi-9"], "no such member of site attic; expected one of broker, main, operator"),
        (["revoke", "broker"], "devices do not look at the revocation list"),
        (["add", "pi-0", "--days", "0"], "is not a number of days"),
    ],
)
def test_each_mistake_is_one_plain_line(
    made: Site, words: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NONN_WIFI_PSK", "longenough" if "Germany" in words else "short")
    before = files(made.folder)
    try:
        code = made.device(*words)
    except SystemExit as left:
        code = int(left.code or 0)
    error = capsys.readouterr().err
    assert code in (ExitCode.USAGE, ExitCode.BAD_INPUT)
    assert expected in error
    assert error.count("\n") == 1
    assert files(made.folder) == before


@pytest.mark.parametrize("damage", [b"", b"{", b'{"schema":2}', b"\xff\xfe"])
def test_a_broken_ledger_is_named(made: Site, damage: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (made.folder / "site.json").write_bytes(damage)
    assert made.device("list") == ExitCode.CONFIGURATION
    assert "site.json" in capsys.readouterr().err


def test_a_lost_authority_is_named(made: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (made.folder / "authority/ca.key").unlink()
    assert made.device("add", "pi-0") == ExitCode.CONFIGURATION
    assert "ca.key: No such file" in capsys.readouterr().err


# --- certificates


def test_openssl_agrees_with_our_certificates(made: Site, tmp_path: Path) -> None:
    ca, server = made.folder / "authority/ca.pem", made.folder / "broker/server.pem"
    client = made.folder / "clients/operator/operator.pem"
    for purpose, certificate in (("sslserver", server), ("sslclient", client)):
        words = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(ca), str(certificate)]
        assert subprocess.run(words, capture_output=True).returncode == 0
    wrong = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(ca), str(client)]
    assert subprocess.run(wrong, capture_output=True).returncode != 0
    text = subprocess.run(["openssl", "x509", "-in", server, "-noout", "-text"], capture_output=True, text=True).stdout
    for name in ("DNS:hub.local", "IP Address:192.168.1.5", "IP Address:127.0.0.1", "DNS:localhost"):
        assert name in text


def test_a_pi_whose_clock_starts_anew_accepts_every_certificate_and_list_of_its_site(tmp_path: Path) -> None:
    authority = Authority.create("home", NOW)
    early = authority.issue_client("pi-0", NOW)
    late = authority.issue_client("pi-1", NOW + timedelta(days=300))
    (tmp_path / "etc/nonn-edge/tls").mkdir(parents=True)
    (tmp_path / "etc/nonn-edge/tls/device.pem").write_text(early.certificate)
    clock = earliest_time(tmp_path)  # where first boot sets a clock that shows 1970
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(late.certificate.encode())
    crl = x509.load_pem_x509_crl(authority.revocation_list([Revoked(late.serial, NOW)], 1).encode())
    assert certificate.not_valid_before_utc <= clock
    assert crl.last_update_utc <= clock + timedelta(seconds=1)
    assert crl.next_update_utc is not None
    assert crl.next_update_utc > NOW + timedelta(days=19 * 365)  # a list that is over would lock everybody out


def test_what_was_renewed_counts_longer_and_the_old_one_still(made: Site) -> None:
    assert made.device("add", "pi-0", "--days", "30") == 0
    old = parse_card(made.card("pi-0").read_bytes(), PLACES)
    identity = SiteFolder(made.folder).ledger.find("pi-0")
    assert identity.state(datetime.now(UTC)) == "renew"
    assert made.device("renew", "pi-0") == 0
    new = parse_card(made.card("pi-0").read_bytes(), PLACES)
    assert new.broker.key != old.broker.key
    ledger = SiteFolder(made.folder).ledger
    assert ledger.find("pi-0").state(datetime.now(UTC)) == "valid"
    assert ledger.revoked() == []
    assert made.device("revoke", "pi-0") == 0
    assert len(SiteFolder(made.folder).ledger.revoked()) == 2


def test_the_card_of_a_broker_keeps_its_secrets_when_others_come_and_go(made: Site) -> None:
    assert made.device("add", "hub", "--role", "both") == 0
    before = parse_card(made.card("hub").read_bytes(), PLACES)
    assert made.device("add", "pi-door", "--camera", "v4l2") == 0
    assert made.device("revoke", "pi-door") == 0
    after = parse_card(made.card("hub").read_bytes(), PLACES)
    assert before.server
    assert after.server
    assert (after.broker.key, after.server.key) == (before.broker.key, before.server.key)
    assert "topic deny #" in after.server.acl
    made.card("hub").unlink()  # it is in the device now, as it should be
    assert made.device("add", "desk", "--role", "viewer") == 0
    later = parse_card(made.card("hub").read_bytes(), PLACES)
    assert later.server
    assert (later.broker.key, later.server.key) == ("(applied)", "(applied)")
    assert "user desk" in later.server.acl


def test_settings_of_coordinator_and_clients_load(made: Site) -> None:
    from argparse import Namespace

    from coordinator.settings import ClientSettings, CoordinatorSettings

    settings = load_settings(CoordinatorSettings, Namespace(config=made.settings("coordinator")), {})
    assert settings.site == "attic"
    assert settings.broker.ca_file
    assert settings.updates.trusted_keys
    assert len(read_trusted_keys(settings.updates.trusted_keys).keys) == 1
    client = load_settings(ClientSettings, Namespace(config=made.settings("operator")), {})
    context = ssl.create_default_context(cafile=str(client.broker.ca_file))
    context.load_cert_chain(str(client.broker.certificate_file), str(client.broker.key_file))


def test_list_says_who_and_until_when(made: Site, capsys: pytest.CaptureFixture[str]) -> None:
    made.device("add", "pi-0", "--students", "1", "--days", "10")
    capsys.readouterr()
    assert made.device("list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["pi-0"]["state"] == "renew"
    assert rows["pi-0"]["student"] == [1]
    assert rows["broker"]["state"] == "valid"
    assert RENEW_BEFORE == RENEW_BEFORE_OF_DOCTOR


def test_toml_that_is_written_is_toml(made: Site) -> None:
    for path in made.folder.rglob("*.toml"):
        assert tomllib.loads(path.read_text())
