"""nonn-edge-setup, without a system around it: what it says when something that it reads is not there."""

import os

import pytest

from firmware_images.first_boot.provision import DeviceFolders
from firmware_images.first_boot.setup_command import main

from .cards import PLAIN

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="nonn-edge-setup wants root")


def test_a_card_that_is_not_there_is_named(folders: DeviceFolders, capsys: pytest.CaptureFixture[str]) -> None:
    card = folders.card / "pi-a.toml"
    assert main([str(card), "--root", str(folders.root)]) == 65
    assert capsys.readouterr().err == f"error: {card}: No such file or directory\n"


def test_a_system_without_time_zones_is_not_blamed_on_the_card(
    folders: DeviceFolders, capsys: pytest.CaptureFixture[str]
) -> None:
    card = folders.card / "pi-a.toml"
    card.write_text(PLAIN)
    countries = folders.root / "usr/share/zoneinfo/iso3166.tab"
    countries.unlink()
    assert main([str(card), "--root", str(folders.root)]) == 74
    assert capsys.readouterr().err == f"error: {countries}: No such file or directory\n"
