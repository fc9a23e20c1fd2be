"""A build that can't work says so before the first minute; a spec that can't start is no spec."""

import os
from pathlib import Path

import pytest

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images import build, package_tree
from firmware_images.spec import DEFAULT_SPEC, parse_spec
from firmware_images.stages import StageCache

SPEC = DEFAULT_SPEC.read_text()


def test_a_full_disk_is_said_before_the_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "NEEDED_BYTES", 2**62)
    with pytest.raises(UserError, match=r"MiB free, a build needs \d+ MiB; make room or name another folder") as caught:
        build.require_space(tmp_path / "not/yet/there")
    assert caught.value.exit_code == ExitCode.IO_ERROR


def test_missing_emulation_is_said_with_the_commands_that_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.uname().machine == "aarch64":
        pytest.skip("this machine needs no emulation")
    monkeypatch.setattr(package_tree, "BINFMT", tmp_path)
    with pytest.raises(UserError, match="install qemu-user-static") as caught:
        package_tree.require_emulation()
    assert caught.value.exit_code == ExitCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"pi3", "zero2w", "pi4"', '"pi5"', 'pi5 does not start with base "debian"; it needs base "raspios"'),
        ('default_role = "agent"', 'default_role = "boss"', "default_role"),
        ("grow = true", "grow = false", "data, and only data, has grow = true"),
        ('label = "NONN-DATA"', 'label = "NONN-ROOT"', "two partitions have the same label"),
        ('filesystem = "vfat"', 'filesystem = "ext4"', "boot is vfat with a size"),
        ("schema = 1", "schema = 2", "schema"),
        ("schema = 1", "schema = ", "Invalid value"),
        ('suite = "bookworm"', 'suite = "bookworm"\ncolour = "red"', "colour"),
    ],
)
def test_a_spec_that_cannot_work_is_refused_by_the_field(old: str, new: str, expected: str) -> None:
    assert old in SPEC
    with pytest.raises(UserError, match=expected) as caught:
        parse_spec(SPEC.replace(old, new, 1), "spec.toml")
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    assert str(caught.value).startswith("spec.toml: ")


@pytest.mark.parametrize("role", ["agent", "coordinator", "both"])
def test_a_spec_may_prefer_any_role(role: str) -> None:
    assert parse_spec(SPEC.replace('default_role = "agent"', f'default_role = "{role}"'), "x").default_role == role


def test_an_interrupted_stage_starts_over_and_a_finished_one_does_not(tmp_path: Path) -> None:
    runs: list[str] = []

    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("half")
        runs.append("interrupted")
        raise KeyboardInterrupt

    def whole(folder: Path) -> None:
        assert not list(folder.iterdir())
        (folder / "file").write_text("whole")
        runs.append("whole")

    stages = StageCache(tmp_path / "x/../cache", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        stages.step("content", ["a"], interrupted)
    first = stages.step("content", ["a"], whole)
    assert stages.step("content", ["a"], whole) == first
    assert stages.step("content", ["b"], whole) != first
    assert stages.step("content", ["a"], whole, fresh=True) == first
    assert runs == ["interrupted", "whole", "whole", "whole"]
    assert ".." not in first.parts  # systemctl --root refuses it
