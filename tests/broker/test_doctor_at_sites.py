"""The doctor at a healthy site and at broken ones: what it finds, the next step, the exit code."""

import json
from pathlib import Path

import pytest

HEALTHY_CHECKS = {
    "broker",
    "login",
    "round trip",
    "nodelay",
    "coordinator",
    "leftovers",
    "gather",
    "disk",
    "permissions",
}


def fleet(stage, port, students=("0", "1", "2"), **environment):
    for student in students:
        stage.agent(port, f"pi-{student}", student, **environment).wait_for("connected")
    stage.coordinator(port, **environment).wait_for("connected")


def examine(stage, port, *arguments, **environment):
    program = stage.program("coordinator.cli", port, "doctor", "--json", "--wait", "3", *arguments, **environment)
    code = program.end(0)
    findings = json.loads(program.output.splitlines()[-1])
    return code, findings


def found(findings, level, check):
    return [f for f in findings if f["level"] == level and f["check"] == check]


def test_a_healthy_site_has_no_failures(stage, broker):
    fleet(stage, broker.port)
    code, findings = examine(stage, broker.port)
    assert code == 0, findings
    assert {f["check"] for f in findings if f["level"] == "OK"} >= HEALTHY_CHECKS
    assert len(found(findings, "OK", "device")) == 3
    assert not [f for f in findings if f["level"] == "FAIL"]


def test_without_a_broker_it_says_where_it_looked(stage):
    code, findings = examine(stage, 1)
    assert code == 1
    [finding] = found(findings, "FAIL", "broker")
    assert "127.0.0.1:1" in finding["text"]
    assert "--broker-host" in finding["next_step"]


def test_the_40_ms_of_a_broker_without_nodelay_are_recognised(stage):
    # Later lines win: the same broker as everywhere, but as Debian configures it.
    slow = stage.broker("set_tcp_nodelay false\nallow_anonymous true\n")
    fleet(stage, slow.port)
    code, findings = examine(stage, slow.port)
    assert code == 0, findings
    [finding] = found(findings, "WARN", "nodelay")
    assert "set_tcp_nodelay true" in finding["next_step"]


def test_a_refused_login_is_told_from_a_missing_broker(stage, tmp_path):
    (tmp_path / "none.passwords").write_text("")
    closed = stage.broker(f"allow_anonymous false\npassword_file {tmp_path / 'none.passwords'}\n")
    code, findings = examine(stage, closed.port, NONN_BROKER_USERNAME="eve", NONN_BROKER_PASSWORD="guess")
    assert code == 1
    [finding] = found(findings, "FAIL", "login")
    assert "password" in finding["next_step"]


def test_a_student_that_nobody_runs(stage, broker):
    fleet(stage, broker.port, students=("0", "2"))
    code, findings = examine(stage, broker.port)
    assert code == 1
    [finding] = found(findings, "FAIL", "student 1")
    assert "--students 1" in finding["next_step"]


def test_a_device_with_another_deployment(stage, broker, tiny, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "name": "another"}))
    fleet(stage, broker.port)
    stage.program(
        "edge_agent.cli", broker.port, "run", "--deployment", str(other), "--students", "0", "--device", "pi-9",
        "--telemetry-s", "0.3",
    ).wait_for("connected")  # fmt: skip
    code, findings = examine(stage, broker.port)
    assert code == 1
    [finding] = found(findings, "FAIL", "deployment")
    assert "pi-9" in finding["text"]


def test_a_site_without_coordinator(stage, broker):
    stage.agent(broker.port, "pi-0", "0").wait_for("connected")
    code, findings = examine(stage, broker.port)
    assert code == 1
    [finding] = found(findings, "FAIL", "coordinator")
    assert "nonn-coordinator run" in finding["next_step"]


def test_leftovers_and_a_dead_device_are_warnings(stage, broker):
    fleet(stage, broker.port)
    dead = stage.agent(broker.port, "pi-gone", "0")
    dead.wait_for("connected")
    dead.end()
    watcher = stage.watcher(broker.port)
    watcher.publish(watcher.topics.frame("ghost"), b"\1\0", retain=True)
    code, findings = examine(stage, broker.port)
    watcher.publish(watcher.topics.frame("ghost"), b"", retain=True)
    assert code == 0, findings
    [leftover] = found(findings, "WARN", "leftover")
    assert watcher.topics.frame("ghost") in leftover["next_step"]
    [device] = found(findings, "WARN", "device")
    assert "pi-gone" in device["text"]


@pytest.mark.parametrize(("mode", "level"), [(0o644, "FAIL"), (0o600, "OK")])
def test_a_password_that_everybody_may_read(stage, broker, tmp_path: Path, mode, level):
    config = tmp_path / "coordinator.toml"
    config.write_text('[broker]\nusername = "eve"\npassword = "long enough"\n')
    config.chmod(mode)
    _, findings = examine(stage, broker.port, "--config", str(config), "--no-frames")
    assert found(findings, level, "permissions")


def test_status_and_watch_show_the_fleet(stage, broker):
    fleet(stage, broker.port)
    status = stage.program("coordinator.cli", broker.port, "status", "--json", "--wait", "2")
    assert status.end(0) == 0, status.output
    seen = json.loads(status.output)
    assert {name for name, device in seen["devices"].items() if device["online"]} == {"pi-0", "pi-1", "pi-2"}
    table = stage.program("coordinator.cli", broker.port, "status", "--wait", "2", COLUMNS="100")
    assert table.end(0) == 0
    assert table.output.count("online") == 4
    watch = stage.program("coordinator.cli", broker.port, "watch", COLUMNS="100")
    watch.wait_for("3 of 3")
    assert watch.end() == 0


def test_status_fails_where_a_student_is_missing(stage, broker):
    fleet(stage, broker.port, students=("0", "1"))
    status = stage.program("coordinator.cli", broker.port, "status", "--wait", "2", COLUMNS="100")
    assert status.end(0) == 1
    assert "without 2" in status.output
