"""What the doctor concludes from facts."""

import dataclasses

import pytest

from coordinator.broker_probe import BrokerFacts
from coordinator.doctor_checks import (
    check_broker,
    check_devices,
    check_gather,
    check_leftovers,
    check_students,
    exit_with_failure,
)
from coordinator.machine_checks import check_cameras, check_disk
from coordinator.roster import Roster
from edge_agent.protocol.status import CoordinatorInfo, NodeInfo, NodeState, NodeTelemetry, StudentInfo

NOW = 1_800_000_000.0
INFO = CoordinatorInfo(
    session=1, coordinator_version="0", deployment="d" * 16, deployment_name="tiny", classes=("a", "b"), height=8,
    width=8, channels=1, students=2, deadline_ms=100,
)  # fmt: skip


def facts(**more):
    return BrokerFacts("10.0.0.1:1883", **{"mqtt": "5", "round_trip_ms": 0.3, "bursts_ms": (0.7,) * 25, **more})


def roster(*devices):
    site = Roster()
    for name, students, deployment, telemetry in devices:
        run = tuple(
            StudentInfo(student=s, network="n", engine="e", precision="int8", artifact="a", width=3, selftest_error=0)
            for s in students
        )
        site.state(name, NodeState(state="online", session=1))
        site.info(
            name,
            NodeInfo(session=1, agent_version="0", deployment=deployment, students=run, machine="aarch64", python="3"),
        )
        if telemetry is not None:
            site.telemetry(name, telemetry)
    return site.devices


def telemetry(**more):
    usual = {
        "session": int((NOW - 100) * 1e6), "uptime_s": 100.0, "cpu_percent": 1.0, "memory_rss_bytes": 1,
        "memory_available_bytes": 1, "frames_received": 0, "frames_answered": 0, "frames_dropped": 0,
        "messages_refused": 0, "queue_length": 0,
    }  # fmt: skip
    return NodeTelemetry(**{**usual, **more})


def levels(findings, check):
    return [finding.level for finding in findings if finding.check == check]


@pytest.mark.parametrize(
    ("bursts_ms", "level"),
    [
        ((0.7,) * 25, "OK"),
        ((43.0, 0.6) * 12, "WARN"),
        ((0.7,) * 10 + (41.0,) * 15, "WARN"),
        ((43.0, 47.0) + (0.7,) * 23, "OK"),
        ((20.0,) * 25, "OK"),
        ((200.0,) * 25, "OK"),
    ],
    ids=["quick", "every second one", "after quick ACKs", "a busy moment", "slow", "very slow"],
)
def test_only_delays_of_the_size_of_a_delayed_ack_are_blamed_on_nagle(bursts_ms, level):
    assert levels(check_broker(facts(bursts_ms=bursts_ms), "user", True), "nodelay") == [level]


def test_a_slow_network_is_not_mistaken_for_nagle():
    findings = check_broker(facts(round_trip_ms=45.0, bursts_ms=(48.0,) * 25), "user", True)
    assert levels(findings, "nodelay") == ["OK"]
    assert levels(findings, "round trip") == ["WARN"]


@pytest.mark.parametrize(
    ("user", "tls", "level"), [(None, False, "WARN"), ("u", False, "WARN"), ("u", True, "OK"), (None, True, "OK")]
)
def test_open_brokers_are_worth_a_warning(user, tls, level):
    assert levels(check_broker(facts(), user, tls), "login") == [level]


def test_an_old_broker_is_named():
    assert levels(check_broker(facts(version="mosquitto version 1.6.12"), "u", True), "version") == ["WARN"]


def test_silence_after_a_login_points_at_the_acl():
    [finding] = [f for f in check_broker(facts(round_trip_ms=None), "u", True) if f.check == "round trip"]
    assert "ACL" in finding.next_step


def test_students_without_device_and_foreign_deployments():
    findings = check_students(INFO, roster(("a", (0,), INFO.deployment, None), ("b", (1,), "e" * 16, None)))
    assert levels(findings, "student 0") == ["OK"]
    assert levels(findings, "student 1") == ["FAIL"]
    assert levels(findings, "deployment") == ["FAIL"]
    assert exit_with_failure(findings)


@pytest.mark.parametrize(
    ("seen", "word"),
    [({"throttled": True}, "throttled"), ({"temperature_c": 83.0}, "hot"), ({"temperature_c": 60.0}, "60 °C")],
)
def test_throttled_and_hot_devices(seen, word):
    [finding] = check_devices(roster(("a", (0,), INFO.deployment, telemetry(**seen))), {})
    assert word in finding.text
    assert (finding.level == "OK") == (seen == {"temperature_c": 60.0})


def test_what_a_device_says_of_its_card_is_a_failure_with_a_next_step():
    devices = roster(("a", (0,), INFO.deployment, telemetry()))
    info = devices[0].info.model_copy(update={"problems": ("the data partition is full",)})
    devices = [dataclasses.replace(devices[0], info=info)]
    [finding] = [found for found in check_devices(devices, {}) if found.level == "FAIL"]
    assert finding.text == "the data partition is full"
    assert "nonn-edge-error.txt" in finding.next_step


@pytest.mark.parametrize(("captured", "level"), [(None, "WARN"), (0, "WARN"), (12, "OK")])
def test_a_camera_is_there_when_its_frames_are(captured, level):
    [device] = roster(("a", (0,), INFO.deployment, telemetry(frames_captured=captured)))
    assert levels(check_devices([device], {}), "camera") == [], "no word of cameras where there is none"
    device = dataclasses.replace(device, info=device.info.model_copy(update={"camera": "front"}))
    assert levels(check_devices([device], {}), "camera") == [level]


@pytest.mark.parametrize(("offset_s", "warned"), [(0, False), (4, False), (-30, True), (3600, True)])
def test_clocks_are_compared_by_session_and_uptime(offset_s, warned):
    devices = roster(("a", (0,), INFO.deployment, telemetry(session=int((NOW - 100 + offset_s) * 1e6))))
    findings = check_devices(devices, {"a": NOW})
    assert bool(levels(findings, "clock")) == warned


def test_a_silent_device_is_a_warning_and_no_failure():
    findings = check_devices(roster(("a", (0,), INFO.deployment, None)), {})
    assert levels(findings, "device") == ["WARN"]
    assert not exit_with_failure(findings)


def test_many_leftovers_are_summed_up():
    findings = check_leftovers([f"nonn/1/home/frame/{n}" for n in range(40)], [])
    assert len(findings) == 6
    assert "35 more" in findings[-1].text


def test_gather_near_the_deadline_and_lost_images():
    assert check_gather([2.0] * 11, [1.0] * 11, 11, 500).level == "OK"
    assert check_gather([490.0] * 11, [1.0] * 11, 11, 500).level == "WARN"
    assert check_gather([2.0] * 9, [1.0] * 9, 11, 500).level == "FAIL"


def test_cameras_are_looked_for_where_they_are(tmp_path):
    assert "none at this machine" in check_cameras(tmp_path).text
    (tmp_path / "video0").write_bytes(b"")
    assert "video0" in check_cameras(tmp_path).text


def test_disk_space_is_measured(tmp_path):
    assert "GB free" in check_disk(tmp_path).text
