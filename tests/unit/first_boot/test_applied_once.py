"""Settings are applied once and whole, whatever happens on the way."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from coordinator.provisioning.authority import Authority
from firmware_images.first_boot import device_files, provision
from firmware_images.first_boot.card_settings import parse_card
from firmware_images.first_boot.card_template import wiped_card
from firmware_images.first_boot.provision import DeviceFolders, Outcome

from .cards import PLACES, PLAIN, WIFI, apply, copy_of, error_text, snapshot_of, tls_card


def test_settings_are_applied_once_and_secrets_leave_the_card(authority: Authority, folders: DeviceFolders) -> None:
    assert apply(folders, tls_card(authority, wifi=WIFI)) is Outcome.APPLIED
    left = (folders.card / "nonn-edge.toml").read_text()
    assert "PRIVATE KEY" not in left
    assert "sesame" not in left
    before = snapshot_of(folders)
    assert apply(folders) is Outcome.UNCHANGED
    assert snapshot_of(folders) == before


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
    reference = copy_of(folders, memory / "reference")
    apply(reference, text)
    expected = snapshot_of(reference)
    real = provision.write_atomically
    cuts = 0
    for after in range(100):
        device = copy_of(folders, memory / f"cut-{after}")
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
        assert snapshot_of(device) == expected, f"after {after} writes"
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


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"x": 1}', b"\xff\x00", b"3"])
def test_a_device_whose_memory_of_the_card_is_lost_applies_the_card_again(
    authority: Authority, folders: DeviceFolders, garbage: bytes
) -> None:
    apply(folders, tls_card(authority, wifi=WIFI))
    before = snapshot_of(folders)
    (folders.state / "stamp.json").write_bytes(garbage)
    assert apply(folders) is Outcome.APPLIED
    assert snapshot_of(folders).keys() == before.keys()
    (folders.state / "stamp.json").write_bytes(garbage)
    (folders.state / "secrets.json").write_bytes(garbage)
    assert apply(folders) is Outcome.REFUSED
    assert "this device has not taken it; write the real one" in error_text(folders)
    assert apply(folders, tls_card(authority, wifi=WIFI)) is Outcome.APPLIED
