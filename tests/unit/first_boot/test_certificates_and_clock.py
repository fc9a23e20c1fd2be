"""A Pi's clock begins in 1970; certificates have dates."""

import os
import ssl
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.provisioning.authority import Authority
from firmware_images.first_boot import device_files
from firmware_images.first_boot.certificate_dates import validity
from firmware_images.first_boot.clock import SAVED_CLOCK, STARTED, earliest_time, note_start
from firmware_images.first_boot.provision import DeviceFolders, Outcome, apply_card, known_places

from .cards import NOW, apply, tls_card, writable


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


def test_a_power_cut_in_the_first_minute_does_not_turn_the_clock_back(folders: DeviceFolders) -> None:
    """Before the time was saved for the first time: the second of two quick starts had the older session."""
    for _ in range(2):
        note_start(folders.root)
        noted = datetime.fromtimestamp((folders.root / STARTED).stat().st_mtime, UTC)
        assert abs(datetime.now(UTC) - noted) < timedelta(seconds=60)
        assert earliest_time(folders.root) == noted + timedelta(seconds=120)
        os.utime(folders.root / STARTED, (NOW.timestamp(), NOW.timestamp()))  # an older start's: noted anew


def test_zones_cannot_leave_their_folder(folders: DeviceFolders) -> None:
    places = known_places(folders.root)
    assert places.is_zone("Europe/Berlin")
    assert not places.is_zone("../../../etc/passwd")
    assert not places.is_zone("/etc/passwd")
    assert not places.is_zone("Europe")
