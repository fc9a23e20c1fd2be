"""A fleet of real programs on a real broker, for benchmarks, soak and the chaos suite."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = REPOSITORY / "tests/fixtures/tiny"


def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class FleetProcesses:
    """Starts and ends mosquitto, agents and a coordinator; logs into `folder`."""

    folder: Path
    deployment: Path = TINY
    port: int = field(default_factory=free_port)
    persistence: bool = True
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    def start_broker(self) -> None:
        """Start mosquitto, again on the same port and with what it had kept."""
        lines = [
            f"listener {self.port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true",
            "max_queued_messages 10000", f"persistence {str(self.persistence).lower()}",
            f"persistence_location {self.folder}/",
        ]  # fmt: skip
        if os.geteuid() == 0:
            lines.append("user root")  # it would change to one that may not write into our folder
        configuration = self.folder / "mosquitto.conf"
        configuration.write_text("\n".join(lines) + "\n")
        mosquitto = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self._start("broker", [mosquitto, "-c", str(configuration)])
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"mosquitto does not listen; see {self.folder}/broker.log")

    def start_agent(self, name: str, students: str, *flags: str, port: int | None = None) -> None:
        """Start an agent called `name`, perhaps behind another port."""
        command = ["-m", "edge_agent.cli", "run", "--device", name, "--students", students]
        self._start(name, [*self._python(command, port), *self._deployment(), *flags])

    def start_coordinator(self, *flags: str) -> None:
        """Start the coordinator."""
        command = self._python(["-m", "coordinator.cli", "run"], None)
        self._start("coordinator", [*command, *self._deployment(), *flags])

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a program."""
        self.running[name].send_signal(number)

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        program = self.running.pop(name)
        program.kill()
        program.wait()

    def stop_all(self) -> None:
        """SIGTERM to all, the broker last; SIGKILL to what does not end."""
        for name in sorted(self.running, key=lambda n: n == "broker"):
            program = self.running[name]
            program.send_signal(signal.SIGCONT)
            program.terminate()
        for program in self.running.values():
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
        self.running.clear()

    def log(self, name: str) -> str:
        """What a program has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _python(self, command: Sequence[str], port: int | None) -> list[str]:
        return [sys.executable, *command, "--broker-port", str(port or self.port)]

    def _deployment(self) -> list[str]:
        return ["--deployment", str(self.deployment)]

    def _start(self, name: str, command: Sequence[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            environment = {k: v for k, v in os.environ.items() if not k.startswith("NONN_")}
            self.running[name] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=REPOSITORY, env=environment
            )
