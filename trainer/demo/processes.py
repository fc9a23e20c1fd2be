"""Child processes that never outlive the demo."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_agent.console.exit_codes import ExitCode, UserError

PR_SET_PDEATHSIG = 1
MOSQUITTO_CONF = """listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
persistence false
"""


class ProcessGroup:
    """Named children with logs in one folder; leaving the block ends them all."""

    def __init__(self, log_folder: Path) -> None:
        self._log_folder = log_folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        log_folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children.values():
            child.terminate()
        deadline = time.monotonic() + 3.0
        for child in self._children.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a child whose output goes to <name>.log; a child of the same name must have ended."""
        with (self._log_folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                process_group=0,  # Ctrl-C reaches the demo alone, which then ends its children in order
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (prctl is safe after fork)
            )

    def kill(self, name: str) -> None:
        """End a child the hard way, as a power cut would."""
        self._children[name].kill()
        self._children[name].wait()

    def finished(self, name: str) -> bool:
        """Tell whether a child has ended."""
        return self._children[name].poll() is not None

    def wait(self, name: str, timeout_s: float) -> int:
        """Exit code of a child that is about to end."""
        try:
            return self._children[name].wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise UserError(f"{name} does not end; see {self._log_folder}", ExitCode.UNAVAILABLE) from None

    def check(self) -> None:
        """UserError with the log's last line if a server has ended by itself."""
        for name, child in self._children.items():
            if child.poll() not in (None, 0, -signal.SIGKILL):
                log = self._log_folder / f"{name}.log"
                lines = log.read_text(errors="replace").strip().splitlines()
                message = f"{name} ended with {child.returncode}: {lines[-1] if lines else 'no output'} ({log})"
                raise UserError(message, ExitCode.UNAVAILABLE)


def script(name: str) -> str:
    """Path of a console script of this very environment."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_broker(group: ProcessGroup, folder: Path) -> tuple[str, int]:
    """Start mosquitto, or the embedded broker where there is none: (name, port), ready to be used."""
    port = free_port()
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program:
        configuration = folder / "mosquitto.conf"
        configuration.write_text(MOSQUITTO_CONF.format(port=port))
        group.start("broker", [program, "-c", str(configuration)], {})
    else:
        group.start("broker", [sys.executable, "-m", "trainer.demo.embedded_broker", str(port)], {})
    deadline = time.monotonic() + 15.0
    while time.monotonic() < deadline:
        group.check()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return ("mosquitto" if program else "amqtt (embedded)"), port
    raise UserError(f"broker: nothing listens on 127.0.0.1:{port} after 15 s", ExitCode.UNAVAILABLE)


def _die_with_parent() -> None:
    """Even SIGKILL of the demo leaves no orphans (Linux only; elsewhere a normal exit ends them)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
