"""What a card may say: every mistake is named where it stands, on the device and at the desk."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_images.cli import main
from firmware_images.first_boot.card_reader import CardProblemsError
from firmware_images.first_boot.card_settings import parse_card
from firmware_images.first_boot.card_template import card_template

from .cards import PLACES, PLAIN


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
