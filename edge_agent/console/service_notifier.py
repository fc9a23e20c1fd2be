"""sd_notify: tells systemd that a program is ready, and alive as long as it makes progress."""

import os
import socket


class ServiceNotifier:
    """Messages to systemd; silent where NOTIFY_SOCKET is not set."""

    def __init__(self, address: str | None = None) -> None:
        address = address if address is not None else os.environ.get("NOTIFY_SOCKET")
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    @property
    def watchdog_s(self) -> float | None:
        """How long systemd waits for a sign of life; None without its watchdog."""
        text = os.environ.get("WATCHDOG_USEC", "")
        return int(text) / 1e6 if text.isdecimal() and int(text) else None

    def ready(self, status: str) -> None:
        """The service is up."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        """Feed the watchdog; call it on progress only."""
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The service ends on request."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            try:
                channel.sendto(text.encode(), self._address)
            except OSError:
                return  # a supervisor that does not listen is no reason to stop answering
