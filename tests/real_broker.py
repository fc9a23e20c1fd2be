"""What every test with a real mosquitto needs: the program, a free port, patience."""

import os
import shutil
import socket
import time
from collections.abc import Callable

# Another version than the system's: NONN_MOSQUITTO=/path/to/mosquitto.
_WANTED = os.environ.get("NONN_MOSQUITTO", "mosquitto")
MOSQUITTO = shutil.which(_WANTED) or shutil.which(_WANTED, path="/usr/sbin:/usr/local/sbin")
PATIENCE_S = 45.0  # for things that take 0.1 s on an idle machine
# As root, mosquitto would give up its rights and then not read our folders.
OWN_RIGHTS = "user root\n" if os.geteuid() == 0 else ""


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(reached: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Look again and again; an AssertionError says what did not come."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)
