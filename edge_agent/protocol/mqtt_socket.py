"""The connection to a broker: TCP or TLS, never blocking once it is open. It knows bytes, not what they mean."""

import select
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.protocol.broker import BrokerSettings

# Imported where TLS begins: 4 MB and 10 ms that a program on its broker's machine need not spend.
if TYPE_CHECKING:
    import ssl

CONNECT_TIMEOUT_S = 3.0
LEAVE_TIMEOUT_S = 0.3
# Linux forgets it with the next bytes that we send, so it is said again after every read.
QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
RECEIVE_BYTES = 65_536  # read at once: twenty frames or hundreds of features


class BrokerSocket:
    """Bytes out that wait for a full socket, bytes in, and the wait for either. OSError: the connection is over."""

    def __init__(self, settings: BrokerSettings, tls: "ssl.SSLContext | None", quick_ack: bool = True) -> None:
        """`quick_ack`: acknowledge what has come at once, for which a broker without TCP_NODELAY waits."""
        self._quick_ack = QUICK_ACK if quick_ack else None
        self.unsent = bytearray()
        self.sent_at = time.monotonic()
        self.has_more = False  # `receive` gave all that it may at a time
        self._poller = select.poll()
        self._wanted = 0  # what the poller looks for on our socket
        self._watched = 0  # how many of the other descriptors it knows
        self._tls_socket: ssl.SSLSocket | None = None
        self._try_later: tuple[type[OSError], ...] = (BlockingIOError,)
        self._socket = _connect(settings.host, settings.port)
        try:
            # Without it Nagle and delayed ACKs add 40 ms to every small message (docs/decisions/0003).
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._wrap(tls, settings.host)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def _wrap(self, tls: "ssl.SSLContext", host: str) -> None:
        from ssl import SSLWantReadError, SSLWantWriteError

        self._try_later = (BlockingIOError, SSLWantReadError, SSLWantWriteError)
        self._socket = self._tls_socket = tls.wrap_socket(self._socket, server_hostname=host)

    @property
    def nodelay(self) -> bool:
        """Small messages leave at once."""
        return bool(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        while self.unsent:
            try:
                sent = self._socket.send(self.unsent)
            except self._try_later:
                return
            del self.unsent[:sent]
            self.sent_at = time.monotonic()

    def receive(self) -> bytes | None:
        """What has come; None: nothing whole yet; b'': the other side has closed."""
        try:
            chunk = self._socket.recv(RECEIVE_BYTES)
        except self._try_later:
            return None
        if chunk and self._tls_socket is not None:
            chunk += self._further_records(RECEIVE_BYTES - len(chunk))
        if self._quick_ack is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, self._quick_ack, 1)
        self.has_more = len(chunk) >= RECEIVE_BYTES
        return chunk

    def _further_records(self, most_bytes: int) -> bytes:
        """TLS gives one record at a time, and brokers make one of every message."""
        records = []
        with suppress(OSError):  # none for now; or the end, of which the next `receive` tells
            while most_bytes > 0 and (record := self._socket.recv(most_bytes)):
                records.append(record)
                most_bytes -= len(record)
        return b"".join(records)

    def wait(self, timeout_s: float, watched: list[int]) -> tuple[bool, bool]:
        """Wait for something to read, or room for what waits. -> (readable, a watched descriptor is)."""
        if self._tls_socket is not None and self._tls_socket.pending():
            return True, False  # decrypted bytes that poll() does not see
        own = self._socket.fileno()
        wanted = select.POLLIN | (select.POLLOUT if self.unsent else 0)
        if wanted != self._wanted:
            self._wanted = wanted
            self._poller.register(own, wanted)
        for descriptor in watched[self._watched :]:
            self._watched += 1
            self._poller.register(descriptor, select.POLLIN)
        readable = woken = False
        for descriptor, flags in self._poller.poll(timeout_s * 1000):
            if descriptor != own:
                woken = True
            elif flags & ~select.POLLOUT:
                readable = True
        return readable, woken

    def leave(self, last_bytes: bytes) -> None:
        """Send the rest and wait for the broker's end: closing at once may reset the connection and send the will."""
        with suppress(OSError):  # the broker is gone, or busy: it has all that we could give it
            self._socket.settimeout(LEAVE_TIMEOUT_S)
            self._socket.sendall(bytes(self.unsent) + last_bytes)
            if self._tls_socket is None:
                self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(RECEIVE_BYTES):
                pass
        self.close()

    def close(self) -> None:
        """End without a word."""
        self._socket.close()


def tls_context(settings: BrokerSettings) -> "ssl.SSLContext | None":
    """TLS as the settings ask for it; OSError names a file that is absent or no PEM."""
    if settings.ca_file is None:
        return None
    import ssl

    files: list[Path] = [
        path for path in (settings.ca_file, settings.certificate_file, settings.key_file) if path is not None
    ]
    for path in files:
        path.open("rb").close()  # ssl's own error does not name the file
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file))
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except ssl.SSLError as error:
        names = ", ".join(map(str, files))
        raise OSError(error.errno, f"no usable PEM ({error.reason})", names) from None
    return context


def _connect(host: str, port: int) -> socket.socket:
    """TCP to the first address that answers, IPv4 before IPv6.

    A site is a private network, and the services' units let no other addresses through: a name that leads to a global
    IPv6 address first would cost a time-out before every login.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    last_error: OSError | None = None
    for family, kind, protocol, _, address in sorted(found, key=lambda entry: entry[0] != socket.AF_INET):
        attempt = socket.socket(family, kind, protocol)
        try:
            attempt.settimeout(CONNECT_TIMEOUT_S)
            attempt.connect(address)
        except OSError as error:
            attempt.close()
            last_error = error
        else:
            return attempt
    raise last_error or OSError(f"{host}: no address")
