"""Two workers on loopback, or two logical devices, train like one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.distribution import check_batch, open_strategy

WORKER = Path(__file__).with_name("distributed_worker.py")
pytestmark = pytest.mark.slow


def start(distribution: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, WORKER, distribution],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def answer(program: subprocess.Popen[str]) -> str:
    out, err = program.communicate(timeout=240)
    assert program.returncode == 0, err[-3000:]
    return out


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def alone() -> dict:
    return json.loads(answer(start("none")))


def same(one: dict, other: dict) -> None:
    assert other["losses"] == pytest.approx(one["losses"], rel=1e-3)
    assert other["weight"] == pytest.approx(one["weight"], rel=1e-4)


def test_two_worker_processes_give_the_loss_of_one(alone):
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    programs = [
        start(
            "multiworker",
            TF_CONFIG=json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": n}}),
        )
        for n in range(2)
    ]
    try:
        chief, other = (answer(program) for program in programs)
    finally:
        for program in programs:
            program.kill()
            program.wait()
    result = json.loads(chief)
    assert other == ""
    assert result["replicas"] == 2
    same(alone, result)


def test_two_devices_give_the_loss_of_one(alone):
    result = json.loads(answer(start("mirrored")))
    assert result["replicas"] == 2
    same(alone, result)


@pytest.mark.parametrize("text", ["", "{", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}, "task": {"index": 1}}'])
def test_a_wrong_cluster_is_explained(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=r"TF_CONFIG.*expected") as trouble:
        open_strategy("multiworker")
    assert trouble.value.exit_code == ExitCode.CONFIGURATION


def test_an_uneven_share_is_refused():
    class Three:
        num_replicas_in_sync = 3

    with pytest.raises(UserError, match="batch 64 can't be shared evenly among 3"):
        check_batch(Three(), 64)
