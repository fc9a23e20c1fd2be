"""Every setting of both programs, set wrongly in every place where it can be set: one line that names the place.

A new setting without a row in these tables fails the first test.
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel

from coordinator.settings import CoordinatorSettings
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.settings import add_setting_flags, load_settings, setting_names
from edge_agent.settings import AgentSettings


@dataclass(frozen=True)
class Wrong:
    """`words`: as flag, as variable and as text in the file; `literals`: other TOML values."""

    words: tuple[str, ...]
    literals: tuple[str, ...] = ()

    def also(self, *words: str) -> "Wrong":
        """More of them."""
        return Wrong((*self.words, *words), self.literals)


def number(*beyond: str) -> Wrong:
    """`beyond`: what is a number, but too small or too large."""
    return Wrong(("", "x", "nan", "-inf", "1,1", *beyond), ("true", "[1]", "{a = 1}", "1979-05-27", *beyond))


ANY_TEXT = Wrong(("two\nlines",), ("5", "true", '["a"]', "{a = 1}"))
NAME = Wrong(("", "Not A Name", "a/b", "+", "ä", "a" * 64, "two\nlines"), ("5", "true", '["a"]'))
HOST = ANY_TEXT.also("")
PATH = ANY_TEXT.also("")
CHOICE = ANY_TEXT.also("", "other", "TEXT")
YES_OR_NO = Wrong(("", "maybe", "2", "true,true"), ("2", "[true]", "{a = 1}", "nan"))
SOURCES = Wrong(("", "a,a", "+,a", "a,+", "a,,b", "Not A Name", "a/b"), ("[]", '["a", "a"]', '"a"', "[5]", "true"))
TOKEN = Wrong(("", "short"), ("1234567890123456", "true"))
PORT = number("-1", "65536", "1.5")

BOTH: dict[str, Wrong] = {
    "deployment": PATH,
    "sources": SOURCES,
    "share_group": NAME,
    "site": NAME,
    "telemetry_s": number("0", "3601", "inf"),
    "log_format": CHOICE,
    "log_level": CHOICE,
    "updates.store": PATH,
    "updates.trusted_keys": PATH,
    "updates.allow_unsigned": YES_OR_NO,
    "updates.disk_budget_mb": number("0", "inf", "1e300"),
    "broker.host": HOST,
    "broker.port": PORT.also("0"),
    "broker.username": ANY_TEXT,
    "broker.password": Wrong((), ("12345678", "true", '["a"]')),  # a password may be any text
    "broker.ca_file": PATH,
    "broker.certificate_file": PATH,
    "broker.key_file": PATH,
    "broker.insecure": YES_OR_NO,
    "broker.keepalive_s": number("1", "601", "2.5"),
    "broker.protocol": CHOICE.also("4", "5.0"),
    "broker.client": CHOICE,
}
AGENT: dict[str, Wrong] = BOTH | {
    "students": Wrong(
        ("", "x", "0,0", "auto,0", "0,none", "auto,none", "-1", "256", "0,,1", "1.5"),
        ("[0, 0]", '["auto", 0]', "[-1]", "[256]", "1.5", "true", "[true]", "[[0]]", "{a = 0}"),
    ),
    "max_students": number("0", "257", "1.5"),
    "device": NAME,
    "engine": CHOICE,
    "precision": CHOICE.also("int4"),
    "num_threads": number("0", "65", "1.5"),
    "mailbox_frames": number("0", "4097", "1.5"),
    "stuck_after_s": number("0.4", "3601", "inf"),
    "proof_s": number("0", "3601", "inf"),
    "problems_file": PATH,
    "camera.source": NAME,
    "camera.kind": CHOICE,
    "camera.location": ANY_TEXT,
    "camera.frames_per_s": number("0", "241", "inf"),
    "camera.exposure_us": number("0", "1000000001", "1.5"),
    "camera.gain": number("0.9", "65", "inf"),
    "camera.picture_per_s": number("-1", "31", "inf"),
    "camera.picture_width": number("31", "4097", "32.5"),
    "camera.repeat": YES_OR_NO,
    "metrics.port": PORT,
    "metrics.host": HOST,
}
COORDINATOR: dict[str, Wrong] = BOTH | {
    "coordinator": NAME,
    "deadline_ms": number("0", "60001", "inf"),
    "adaptive_deadline": YES_OR_NO,
    "shortest_deadline_ms": number("0", "60001", "inf"),
    "early_answer": number("0", "1.01", "inf"),
    "quorum": number("0", "1.5"),
    "max_open_frames": number("0", "65537", "1.5"),
    "assign": YES_OR_NO,
    "away_s": number("-1", "86401", "inf"),
    "requests": YES_OR_NO,
    "journal": PATH,
    "artifact_bytes_per_s": number("9999", "1e10", "inf"),
    "trial_s": number("-1", "3601", "inf"),
    "dashboard.port": PORT,
    "dashboard.host": HOST,
    "dashboard.token": TOKEN,
    "dashboard.read_only": YES_OR_NO,
    "dashboard.metrics_open": YES_OR_NO,
    "home_assistant.enabled": YES_OR_NO,
    "home_assistant.prefix": ANY_TEXT.also("", "Not A Prefix", "a/b"),
    "home_assistant.picture_s": number("0.1", "3601", "inf"),
}
PROGRAMS: dict[type[BaseModel], dict[str, Wrong]] = {AgentSettings: AGENT, CoordinatorSettings: COORDINATOR}
NEEDED = {AgentSettings: {"deployment": "d", "students": "0"}, CoordinatorSettings: {"deployment": "d"}}
CASES = [(kind, name) for kind, table in PROGRAMS.items() for name in table]
TABLES = [(kind, table) for kind in PROGRAMS for table in sorted({name.rpartition(".")[0] for name in PROGRAMS[kind]})]


def said(kind: type[BaseModel], arguments: list[str], environ: dict[str, str], *but: str) -> str:
    """What the program says to these settings and nothing else wrong."""
    parser = argparse.ArgumentParser()
    add_setting_flags(parser, kind)
    needed = [f"--{name}={value}" for name, value in NEEDED[kind].items() if name not in but]
    with pytest.raises(UserError) as caught:
        pytest.fail(f"taken: {load_settings(kind, parser.parse_args([*needed, *arguments]), environ)}")
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    line = str(caught.value)
    assert line.isprintable(), line
    assert len(line) < 250, line
    return line


def toml_text(word: str) -> str:
    escaped = "".join(f"\\u{ord(char):04x}" if char in '"\\' or ord(char) < 32 else char for char in word)
    return f'"{escaped}"'


@pytest.mark.parametrize("kind", PROGRAMS, ids=lambda kind: kind.__name__)
def test_every_setting_has_wrong_values(kind: type[BaseModel]) -> None:
    assert set(setting_names(kind)) == set(PROGRAMS[kind])
    for name, wrong in PROGRAMS[kind].items():
        assert wrong.literals, name
        assert wrong.words or name == "broker.password", name


@pytest.mark.parametrize(("kind", "name"), CASES, ids=lambda part: part if isinstance(part, str) else part.__name__)
def test_a_wrong_value_is_refused_where_it_stands(kind: type[BaseModel], name: str, tmp_path: Path) -> None:
    flag, variable = "--" + re.sub("[._]", "-", name), "NONN_" + name.replace(".", "_").upper()
    table, _, key = name.rpartition(".")
    file = tmp_path / "settings.toml"
    wrong = PROGRAMS[kind][name]
    for word in wrong.words:
        by_flag = said(kind, [f"{flag}={word}"], {}, name)
        assert by_flag.startswith(f"{flag}: "), by_flag
        by_variable = said(kind, [], {variable: word}, name)
        assert by_variable.startswith(f"environment {variable}: "), by_variable
        assert "expected " in by_flag
        assert by_flag.removeprefix(flag) == by_variable.removeprefix(f"environment {variable}")
    for literal in (*map(toml_text, wrong.words), *wrong.literals):
        file.write_text(f"# settings\n{f'[{table}]' if table else ''}\n{key} = {literal}\n")
        in_file = said(kind, ["--config", str(file)], {}, name)
        assert in_file.startswith(f"{file}:3: {name}: "), in_file
        assert "expected " in in_file


@pytest.mark.parametrize(("kind", "table"), TABLES, ids=lambda part: part if isinstance(part, str) else part.__name__)
def test_an_unknown_key_is_refused_in_every_table(kind: type[BaseModel], table: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"{f'[{table}]' if table else ''}\nno_such_key = 1\n")
    name = f"{table}.no_such_key" if table else "no_such_key"
    assert said(kind, ["--config", str(file)], {}).startswith(f"{file}:2: {name}: no such setting; expected ")


@pytest.mark.parametrize("kind", PROGRAMS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("site = 'a'\nsite = 'b'", 2),
        ("[broker]\nport = 1\nport = 1", 3),
        ("[broker]\nport = 1\n[broker]\nhost = 'a'", 3),
        ("broker.port = 1\n[broker]\nhost = 'a'", 2),
    ],
)
def test_what_stands_twice_is_refused(kind: type[BaseModel], text: str, line: int, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    assert said(kind, ["--config", str(file)], {}).startswith(f"{file}:{line}: not valid TOML: ")
