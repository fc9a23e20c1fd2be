import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from coordinator.heartbeat import LONGEST_INTERVAL_S
from edge_agent.console.exit_codes import ExitCode
from edge_agent.settings import AgentSettings
from firmware_images.first_boot.device_files import AGENT_CONFIG, COORDINATOR_CONFIG
from firmware_images.spec import DEFAULT_SPEC, load_spec

REPOSITORY = Path(__file__).parent.parent.parent
UNITS = REPOSITORY / "systemd"
OVERLAY_UNITS = REPOSITORY / "firmware_images/overlay/usr/lib/systemd/system"
BROKER_DROP_IN = OVERLAY_UNITS / "mosquitto.service.d/nonn-edge.conf"
# Exposure that `systemd-analyze security` may find, 0 to 10: the agent opens cameras, the coordinator no device at all;
# the last two are root, and mount the card.
LIMITS = {
    "edge-agent.service": 2.0,
    "edge-agent@.service": 2.0,
    "edge-coordinator.service": 1.5,
    "mosquitto.service": 1.5,
    "nonn-card-problems.service": 1.5,
    "nonn-network-report.service": 2.5,
    "nonn-first-boot.service": 3.0,
}
PROGRAMS = ["edge-agent.service", "edge-agent@.service", "edge-coordinator.service"]
# What a service can do without. One that cannot says so: "# Relaxed (ProtectClock=yes): why".
STRICT = (
    "CapabilityBoundingSet=", "DevicePolicy=closed", "IPAddressDeny=any", "KeyringMode=private", "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes", "NoNewPrivileges=yes", "PrivateDevices=yes", "PrivateIPC=yes", "PrivateMounts=yes",
    "PrivateNetwork=yes", "PrivateTmp=yes", "PrivateUsers=yes", "ProcSubset=pid", "ProtectClock=yes",
    "ProtectControlGroups=yes", "ProtectHome=yes", "ProtectHostname=yes", "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes", "ProtectKernelTunables=yes", "ProtectProc=invisible", "ProtectSystem=strict",
    "RestrictNamespaces=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes", "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources", "UMask=0077", "User=",
)  # fmt: skip
WIDENING = ("DeviceAllow=", "IPAddressAllow=", "ReadWritePaths=", "SupplementaryGroups=", "SystemCallFilter=@mount")


def unit_text(unit: str) -> str:
    """The unit as the device has it; of the broker, which is Debian's, with our part laid over it."""
    if unit == "mosquitto.service":
        return f"[Service]\nType=notify\nExecStart=/usr/sbin/mosquitto\n{BROKER_DROP_IN.read_text()}"
    return ((OVERLAY_UNITS if unit.startswith("nonn-") else UNITS) / unit).read_text()


def test_no_service_of_ours_is_without_a_limit() -> None:
    ours = [*UNITS.glob("*.service"), *OVERLAY_UNITS.glob("*.service")]
    assert {path.name for path in ours} | {"mosquitto.service"} == set(LIMITS)


@pytest.fixture(scope="module")
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("needs systemd-analyze (package systemd)")
    return found


@pytest.mark.parametrize("unit", LIMITS)
def test_exposure_stays_below_its_limit(analyze: str, unit: str, tmp_path: Path) -> None:
    path = tmp_path / unit
    path.write_text(unit_text(unit))
    done = subprocess.run([analyze, "security", "--offline=true", "--no-pager", path], capture_output=True, text=True)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= LIMITS[unit]


@pytest.mark.parametrize("unit", LIMITS)
def test_systemd_understands_every_line(analyze: str, unit: str, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    # The programs are not installed here; where they lie is not what this test is about.
    text = re.sub(r"^(Exec\w+=)\S+", rf"\g<1>{program}", unit_text(unit), flags=re.MULTILINE)
    name = unit.replace("@.", "@0.")
    (tmp_path / name).write_text(text)
    done = subprocess.run([analyze, "verify", "--man=no", tmp_path / name], capture_output=True, text=True)
    about_us = [line for line in done.stderr.splitlines() if name in line]
    assert about_us == []


@pytest.mark.parametrize("unit", LIMITS)
def test_every_relaxed_protection_has_its_reason_beside_it(unit: str) -> None:
    lines = unit_text(unit).splitlines()
    relaxed = "".join(re.findall(r"^# Relaxed \(([^)]+)\): \S", unit_text(unit), re.MULTILINE))
    for strict in STRICT:
        is_strict = strict in lines or (strict == "User=" and any(line.startswith("User=") for line in lines))
        assert is_strict != (strict in relaxed), f"{unit}: {strict} is set, or relaxed for a reason, and not both"
    for number, line in enumerate(lines):
        if line.startswith(WIDENING):
            kin = line.split("=")[0].removesuffix("Allow").removesuffix("Deny")
            above = next(
                other for other in reversed(lines[:number]) if not other.startswith((kin, "PrivateD", "DeviceP"))
            )
            assert above.startswith("#"), f"{unit}: {line}"


@pytest.mark.parametrize("unit", PROGRAMS)
def test_bad_settings_end_the_restarts(unit: str) -> None:
    text = (UNITS / unit).read_text()
    assert f"RestartPreventExitStatus={ExitCode.CONFIGURATION.value}\n" in text
    assert "Restart=on-failure\n" in text


def test_a_coordinator_that_makes_no_progress_is_restarted_and_answers_what_was_open() -> None:
    text = (UNITS / "edge-coordinator.service").read_text()
    assert "Type=notify\n" in text
    assert "Environment=NONN_JOURNAL=%S/nonn-edge/frames.journal\n" in text
    assert "StateDirectory=nonn-edge\n" in text
    watchdog = re.search(r"^WatchdogSec=(\d+)$", text, re.MULTILINE)
    assert watchdog
    assert int(watchdog[1]) >= 5 * LONGEST_INTERVAL_S


@pytest.mark.parametrize("unit", ["edge-agent.service", "edge-agent@.service"])
def test_an_agent_that_makes_no_progress_is_restarted(unit: str) -> None:
    text = (UNITS / unit).read_text()
    assert "Type=notify\n" in text
    fed_every_s = AgentSettings.model_fields["telemetry_s"].default
    watchdog = re.search(r"^WatchdogSec=(\d+)$", text, re.MULTILINE)
    assert watchdog
    assert int(watchdog[1]) >= 5 * fed_every_s


def test_units_start_where_the_first_boot_wrote_their_settings() -> None:
    for unit, config in (("edge-agent.service", AGENT_CONFIG), ("edge-coordinator.service", COORDINATOR_CONFIG)):
        text = (UNITS / unit).read_text()
        assert f"ConditionPathExists=/{config}\n" in text
        assert f"--config /{config}\n" in text


def test_the_image_enables_only_units_that_exist() -> None:
    ours = {path.name for folder in (UNITS, OVERLAY_UNITS) for path in folder.iterdir()}
    for name in load_spec(DEFAULT_SPEC).services.enable:
        if name.startswith(("edge-", "nonn-")):
            assert (name if name.endswith(".timer") else f"{name}.service") in ours


def test_no_start_waits_for_a_second_network_or_long_for_a_first() -> None:
    """Seen on an emulated card with an unused network: 121 s, at every start, before agent and coordinator."""
    lines = (OVERLAY_UNITS / "systemd-networkd-wait-online.service.d/nonn-edge.conf").read_text().splitlines()
    assert lines[-2] == "ExecStart="  # Debian's is replaced, not added to
    program, *flags = lines[-1].removeprefix("ExecStart=").split()
    assert program == "/lib/systemd/systemd-networkd-wait-online"
    assert "--any" in flags
    [timeout] = [int(flag.removeprefix("--timeout=")) for flag in flags if flag.startswith("--timeout=")]
    assert 0 < timeout <= 30  # 0 would be for ever


def test_sysusers_and_tmpfiles_are_accepted(tmp_path: Path) -> None:
    if shutil.which("systemd-sysusers") is None or shutil.which("systemd-tmpfiles") is None:
        pytest.skip("needs systemd-sysusers and systemd-tmpfiles (package systemd)")
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr/lib/sysusers.d").mkdir(parents=True)
    shutil.copy(UNITS / "sysusers.conf", tmp_path / "usr/lib/sysusers.d/nonn-edge.conf")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", "nonn-edge.conf"], check=True)
    assert "nonn-edge:" in (tmp_path / "etc/passwd").read_text()
    assert "/usr/sbin/nologin" in (tmp_path / "etc/passwd").read_text()
    (tmp_path / "usr/lib/tmpfiles.d").mkdir()
    shutil.copy(UNITS / "tmpfiles.conf", tmp_path / "usr/lib/tmpfiles.d/nonn-edge.conf")
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", "nonn-edge.conf"], check=True)
    assert (tmp_path / "var/lib/nonn-edge").is_dir()


# --- back-off: a shell script that any systemd can run


def _back_off(folder: Path, verb: str, result: str = "exit-code") -> str:
    # `sleep` says how long it would wait.
    (folder / "bin").mkdir(exist_ok=True)
    sleep = folder / "bin/sleep"
    sleep.write_text('#!/bin/sh\necho "slept $1"\n')
    sleep.chmod(0o755)
    environment = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "RUNTIME_DIRECTORY": str(folder),
        "SERVICE_RESULT": result,
    }
    return subprocess.run(
        [UNITS / "back-off", verb], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_a_service_that_keeps_failing_waits_longer_and_longer_up_to_two_minutes(tmp_path: Path) -> None:
    waits = []
    for _ in range(9):
        waits += re.findall(r"slept (\d+)", _back_off(tmp_path, "wait")) or ["0"]
        _back_off(tmp_path, "note")
    assert waits == ["0", "2", "4", "8", "16", "32", "64", "120", "120"]


def test_a_clean_stop_forgives(tmp_path: Path) -> None:
    for _ in range(3):
        _back_off(tmp_path, "wait")
        _back_off(tmp_path, "note")
    _back_off(tmp_path, "note", "success")
    assert "slept" not in _back_off(tmp_path, "wait")


def test_ten_good_minutes_forgive(tmp_path: Path) -> None:
    (tmp_path / "failures").write_text("6\n")
    (tmp_path / "started").write_text("1000\n")  # long ago
    _back_off(tmp_path, "note")
    assert (tmp_path / "failures").read_text() == "1\n"
