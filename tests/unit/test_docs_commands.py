"""Commands in the documents are commands that there are: every flag, make target and script."""

import argparse
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import coordinator.cli
import edge_agent.cli
import firmware_images.cli
import trainer.cli
from coordinator.settings import CoordinatorSettings
from edge_agent.console.bundle_command import parse_bundle_words
from edge_agent.console.exit_codes import UserError
from edge_agent.console.settings import load_settings
from edge_agent.settings import AgentSettings
from trainer.configuration import RunConfiguration
from trainer.flags import given_settings

PROGRAMS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "nonn-agent": edge_agent.cli._parser,
    "nonn-coordinator": coordinator.cli._parser,
    "nonn-image": firmware_images.cli._parser,
    "nonn-trainer": trainer.cli._parser,
}
_ENDS = {"|", "||", "&", "&&", ";", ";;", "(", ")"}


@dataclass(frozen=True)
class Command:
    """One command line. `whole`: out of a block, to be typed as it stands; else named in a sentence."""

    page: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def commands_in(text: str, page: str) -> Iterator[Command]:
    """Commands of a Markdown page."""
    for block in MarkdownIt("commonmark").enable("table").parse(text):
        if block.type == "code_block" or (block.type == "fence" and block.info in ("", "sh", "console")):
            yield from _of_script(block.content, page, whole=True)
        for child in block.children or ():
            if child.type == "code_inline":
                yield from _of_script(child.content, page, whole=False)


def _of_script(script: str, page: str, *, whole: bool) -> Iterator[Command]:
    for line in script.replace("\\\n", " ").splitlines():
        if not re.search(r"\bnonn-(agent|coordinator|image|trainer)\b|\bmake\b|\bpython3? ", line):
            continue
        plain = line if whole else re.sub(r"[\[\]]", " ", line)  # `[--json]`: may be left out
        lexer = shlex.shlex(plain.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            continue  # a piece of output or of another language
        for part in _simple_commands(words):
            if part and (part[0] in PROGRAMS or part[0] in ("make", "python", "python3")):
                yield Command(page, tuple(part), whole)


def _simple_commands(words: Sequence[str]) -> Iterator[list[str]]:
    """The words between pipes and semicolons, without assignments, sudo and redirections."""
    part: list[str] = []
    for word in [*words, ";"]:
        if word in _ENDS:
            while part and (re.fullmatch(r"[A-Z_]+=.*", part[0]) or part[0] in ("sudo", "do", "then", "while", "if")):
                part.pop(0)
            redirect = next(
                (n for n, each in enumerate(part) if set(each) & set("<>") and set(each) <= set("<>&")), None
            )
            part = part[:redirect]
            if redirect and part[-1] == "2":
                part.pop()
            yield part
            part = []
        else:
            part.append(word)


def documented(repository: Path) -> list[Command]:
    pages = [repository / "README.md", repository / "CONTRIBUTING.md", *sorted((repository / "docs").rglob("*.md"))]
    found = []
    for page in pages:
        found += commands_in(page.read_text(encoding="utf-8"), str(page.relative_to(repository)))
    return found


def refusal(command: Command, capsys: pytest.CaptureFixture[str]) -> str:
    """What the program's own parser has against a command; '' if nothing."""
    program, *words = command.words
    if not words or words[0] in ("COMMAND", "..."):
        return ""
    if not command.whole:
        words = [word.lower() if word.isalpha() and word.isupper() else word for word in words]  # NAME: some name
    try:
        arguments = PROGRAMS[program]().parse_args(words)
        if words[0] == "bundle":
            parse_bundle_words(words[1:], f"{program} bundle")
        elif command.whole:
            _check_values(program, words, arguments)
    except SystemExit as ended:
        said = capsys.readouterr().err.strip()
        if not ended.code:
            return ""  # --help, --version
        incomplete = "arguments are required" in said or "expected one argument" in said
        return "" if incomplete and not command.whole else f"{command}: {said}"
    except (UserError, ValueError) as error:
        return f"{command}: {error}"
    return ""


def _check_values(program: str, words: Sequence[str], arguments: argparse.Namespace) -> None:
    """Flags take any text; the settings behind them do not."""
    if "..." in words:
        return
    if (program, words[0]) == ("nonn-agent", "run") and arguments.config is None:
        load_settings(AgentSettings, arguments, {})
    elif (program, words[0]) == ("nonn-coordinator", "run") and arguments.config is None:
        load_settings(CoordinatorSettings, arguments, {})
    elif (program, words[0]) == ("nonn-trainer", "run"):
        given = given_settings(arguments)
        given.setdefault("dataset", "digits")
        RunConfiguration.model_validate({"students": 2, "student": ("wrn-16-1",), "teacher": "wrn-16-4", **given})


def test_the_programs_accept_every_command_in_the_documents(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [command for command in documented(repository) if command.words[0] in PROGRAMS]
    assert sum(command.whole for command in commands) > 40
    assert [problem for command in commands if (problem := refusal(command, capsys))] == []


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_accept_the_examples_of_their_own_help(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    commands = []
    for parser in parsers(PROGRAMS[program]()):
        commands += list(_of_script(parser.epilog or "", f"{parser.prog} --help", whole=True))
    assert commands
    assert [problem for command in commands if (problem := refusal(command, capsys))] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_says_its_version(program: str, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        PROGRAMS[program]().parse_args(["--version"])
    assert ended.value.code == 0
    version = re.search(r'^version = "(.+)"', (repository / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert capsys.readouterr().out == f"{program} {version[1]}\n"
    assert f"## [{version[1]}]" in (repository / "CHANGELOG.md").read_text(encoding="utf-8")


def test_make_targets_exist(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    commands = [command for command in documented(repository) if command.words[0] == "make"]
    assert len(commands) > 5
    for command in commands:
        for word in command.words[1:]:
            assert "=" in word or word in targets or word == "TARGET", command


def test_the_scripts_of_the_documents_take_these_flags(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each script is started up to where its own parser has read the line."""

    class ParsedError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *_: object, **__: object) -> argparse.Namespace:
        parse(self)
        raise ParsedError

    problems, read = [], 0
    for command in documented(repository):
        script = next((word for word in command.words[1:2] if word.endswith(".py")), None)
        if command.words[0] not in ("python", "python3") or script is None:
            continue
        path = repository / script
        if not path.is_file():
            problems.append(f"{command}: no such file")
            continue
        read += 1
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", list(command.words[1:]))
            patch.setattr(sys, "path", [str(path.parent), *sys.path])
            patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
            try:
                runpy.run_path(str(path), run_name="__main__")
                problems.append(f"{command}: reads no flags")
            except ParsedError:
                continue
            except SystemExit as ended:
                said = capsys.readouterr().err.strip().splitlines()[-1:]
                if ended.code and not ("arguments are required" in str(said) and not command.whole):
                    problems.append(f"{command}: {said}")
    assert read > 3
    assert problems == []


def test_wrong_commands_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    page = (
        "Say `nonn-agent fly` or `nonn-agent run [--students 0]`.\n\n```sh\n"
        "NONN_SITE=x nonn-coordinator run --wings 2 > log 2>&1 &\nnonn-agent bench --deployment D \\\n  --json\n"
        "nonn-agent run --students x\nnonn-trainer bundle keygen\n```\n"
    )
    found = list(commands_in(page, "page"))
    assert [command.words[0] for command in found] == [
        "nonn-agent", "nonn-agent", "nonn-coordinator", "nonn-agent", "nonn-agent", "nonn-trainer",
    ]  # fmt: skip
    assert found[3].words == ("nonn-agent", "bench", "--deployment", "D", "--json")
    assert [bool(refusal(command, capsys)) for command in found] == [True, False, True, False, True, True]


@pytest.mark.parametrize(("program", "extra"), [("coordinator", "coordinator"), ("trainer", "trainer")])
def test_a_program_without_its_packages_names_the_extra(program: str, extra: str, repository: Path) -> None:
    """As in an agent's installation: there is neither rich nor Pillow."""
    argument = "demo" if program == "trainer" else "--version"
    script = f"import sys; sys.modules.update(rich=None, PIL=None); sys.argv[0] = 'nonn-{program}'\n"
    script += f"import {program}.cli; sys.exit({program}.cli.main(['{argument}']))"
    found = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout) == (69, "")
    assert found.stderr.startswith(f"error: rich is not installed; expected nonn-edge's extra {extra}: pip install ")
    assert found.stderr.count("\n") == 1
