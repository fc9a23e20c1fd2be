"""docs/install.md says true commands: those that need no hardware run here, one after the other, as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.cli import main


def test_the_commands_of_the_page_run(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs/install.md").read_text()
    blocks = re.findall(r"<!-- runs -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 4
    commands = [line for block in blocks for line in block.strip().splitlines()]
    # Deleting cards comes before renewing one, as on the page.
    (tmp_path / "docs").symlink_to(repository / "docs")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "nonn-coordinator").write_text(f'#!/bin/sh\nexec {sys.executable} -m coordinator.cli "$@"\n')
    (programs / "nonn-coordinator").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(repository)}
    output = ""
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        output += done.stdout
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
