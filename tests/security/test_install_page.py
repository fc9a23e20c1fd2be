"""docs/install.md says true commands: those that need no hardware run here, one after the other, as they stand."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from coordinator.cli import main


def test_the_commands_of_the_page_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repository / "docs/install.md").read_text()
    blocks = re.findall(r"<!-- runs -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 4
    (tmp_path / "docs").symlink_to(repository / "docs")
    monkeypatch.chdir(tmp_path)
    for command in [line for block in blocks for line in block.strip().splitlines()]:
        program, *words = shlex.split(command)
        if program == "nonn-coordinator":
            assert main(words) == 0, f"{command}: {capsys.readouterr().err}"
        else:
            subprocess.run([program, *words], check=True)
    output = capsys.readouterr().out
    for words in ("pi-hub", "valid until", "signed by", "copy it over the card's nonn-edge.toml"):
        assert words in output


def test_every_flag_on_the_page_exists(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (repository / "docs/install.md").read_text()
    for command in ("device add", "deploy", "doctor", "classify", "status", "init", "run"):
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        shown = capsys.readouterr().out
        for line in page.splitlines():
            if line.startswith(f"nonn-coordinator {command} "):
                for flag in re.findall(r"--[a-z-]+", line):
                    assert flag in shown, f"{command} {flag}"
