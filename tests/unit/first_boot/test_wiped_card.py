"""What is left on the card: the same settings without their secrets."""

import tomllib
from dataclasses import replace

from coordinator.provisioning.authority import Authority
from edge_agent.protocol.device_card import APPLIED, CARD_FILE
from firmware_images.first_boot.card_settings import parse_card
from firmware_images.first_boot.card_template import wiped_card
from firmware_images.first_boot.provision import DeviceFolders, Outcome

from .cards import PLACES, PLAIN, WIFI, apply, hub_card, tls_card


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


def test_the_wiped_text_is_toml_whatever_the_strings(folders: DeviceFolders) -> None:
    settings = parse_card((PLAIN + WIFI).encode(), PLACES)
    assert tomllib.loads(wiped_card(settings, 0).decode())["wifi"]["ssid"] == "K\u00fcche"
