"""Settings: three layers, and errors that name the place and what was expected."""

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.settings import ClientSettings, CoordinatorSettings
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.settings import add_setting_flags, line_of, load_settings
from edge_agent.settings import AgentSettings, default_device_id


def load(kind: type, arguments: list[str], environ: dict[str, str]) -> object:
    parser = argparse.ArgumentParser()
    add_setting_flags(parser, kind)
    return load_settings(kind, parser.parse_args(arguments), environ)


def trouble(kind: type, arguments: list[str], environ: dict[str, str]) -> str:
    with pytest.raises(UserError) as caught:
        load(kind, arguments, environ)
    assert caught.value.exit_code == ExitCode.CONFIGURATION == 78
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text('deployment = "/srv/d"\nstudents = [0, 2]\nsite = "toml"\n\n[broker]\nhost = "toml"\nport = 1\n')
    return path


def test_flags_win_over_the_environment_and_that_over_the_file(toml: Path) -> None:
    environ = {"NONN_SITE": "environment", "NONN_BROKER_HOST": "environment", "NONN_STUDENTS": "1,3"}
    settings = load(AgentSettings, ["--config", str(toml), "--site", "flag", "--insecure"], environ)
    assert isinstance(settings, AgentSettings)
    assert settings.site == "flag"
    assert settings.broker.host == "environment"
    assert settings.broker.port == 1
    assert settings.students == (1, 3)
    assert settings.deployment == Path("/srv/d")
    assert settings.device == default_device_id()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('site = "home"\nsitee = "x"', 2, "sitee: no such setting; expected site"),
        ("[broker]\nhots = 'x'", 2, "broker.hots: no such setting; expected broker.host"),
        ("[brocker]\nhost = 'x'", 1, "brocker: no such setting"),
        ("[broker]\n\nport = 70000", 3, "broker.port: expected less than or equal to 65535 (got 70000)"),
        ("broker.port = 0", 1, "broker.port"),
        ("broker = { port = 0 }", 1, "broker.port"),
        ("# a comment\nsite = 'Bad Site'", 2, "site: site 'Bad Site': expected 1 to 63 of a-z"),
        ("deadline_ms = 'soon'", 1, "deadline_ms"),
        ("quorum = 0", 1, "quorum"),
        ("log_level = 'loud'", 1, "expected 'debug', 'info', 'warning' or 'error'"),
        ("sources = ['a', 'B']", 1, "sources: source 'B'"),
        ("broker = 5", 1, "broker"),
        ("site = 'home'\nsite = 'home'", 2, "not valid TOML"),
        ("[broker\nhost = 1", 1, "not valid TOML"),
        ("[broker]\ncertificate_file = 'x'", 1, "certificate_file and key_file: expected both or neither"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    message = trouble(CoordinatorSettings, ["--config", str(path), "--deployment", "d"], {})
    assert message.startswith(f"{path}:{line}: "), message
    assert words in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "No such file" in trouble(ClientSettings, ["--config", str(tmp_path / "none.toml")], {})
    assert "Is a directory" in trouble(ClientSettings, ["--config", str(tmp_path)], {})
    (tmp_path / "latin.toml").write_bytes(b"site = '\xe4'")
    assert "not UTF-8" in trouble(ClientSettings, ["--config", str(tmp_path / "latin.toml")], {})


def test_wrong_flags_and_variables_are_named() -> None:
    assert trouble(ClientSettings, ["--broker-port", "x"], {}).startswith("--broker-port: expected a whole number")
    message = trouble(ClientSettings, [], {"NONN_BROKER_PORT": "99999"})
    assert message.startswith("environment NONN_BROKER_PORT: expected ")
    assert "65535 (got '99999')" in message
    assert "--students, NONN_STUDENTS or students" in trouble(AgentSettings, ["--deployment", "d"], {})


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[broker]\npassword = 12345678\n")  # forgot the quotes
    message = trouble(ClientSettings, ["--config", str(path)], {})
    assert message.startswith(f"{path}:2: broker.password")
    assert "12345678" not in message
    settings = load(ClientSettings, [], {"NONN_BROKER_PASSWORD": "very-secret"})
    assert "very-secret" not in repr(settings)


@given(st.text("ab=[].\"'\n# 1", max_size=60))
def test_the_line_is_one_of_the_file(text: str) -> None:
    assert 1 <= line_of(text, ("broker", "port")) <= max(1, len(text.splitlines()))
