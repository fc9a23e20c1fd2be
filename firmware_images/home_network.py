"""A home network for emulated cards: a switch, and on it the router of a household, or none. Anybody may start it.

QEMU's user-mode router takes every TCP packet that it sees for its own: on one cable with two devices, which is what
QEMU's hub makes, it answers each in the other's place, and their connections are refused or time out. A switch, as each
household's router has one, gives it only what is meant for it.
"""

import selectors
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

# As a router at home has them: private IPv4 addresses by DHCP, and an IPv6 prefix of the household (ULA) besides.
# QEMU's own fec0::/64 (site-local, given up in RFC 3879) is none that a household has.
SUBNET, FIRST_ADDRESS = "192.168.77.0/24", "192.168.77.10"
IPV6 = "ipv6-prefix=fd6e:6f6e:6e00::"
ROUTERS = {
    "router": f"net={SUBNET},dhcpstart={FIRST_ADDRESS},{IPV6}",
    "ipv6": f"ipv4=off,{IPV6}",
}
LENGTH_BYTES = 4  # before each frame on QEMU's socket
ADDRESS_BYTES = 6  # receiver, then sender
LONGEST_FRAME = 65_536 + 18
# A plugged-in machine that does not read loses frames, as at any switch, and costs no more memory than this.
MOST_WAITING_BYTES = 1_000_000
RECEIVE_BYTES = 65_536
GROUP_BIT = 1  # of an Ethernet address's first byte: for all, or for a group


def router_command(kind: str, plug: int, forwards: Mapping[int, int]) -> list[str]:
    """Return QEMU's command line, without a machine. `forwards`: our ports -> those of the router's first device."""
    rules = [f"hostfwd=tcp:127.0.0.1:{here}-{FIRST_ADDRESS}:{there}" for here, there in forwards.items()]
    return [
        "qemu-system-aarch64", "-M", "none", "-display", "none", "-monitor", "none", "-serial", "none",
        "-netdev", ",".join(["user", "id=router", ROUTERS[kind], *rules]),
        "-netdev", "hubport,id=inside,hubid=0,netdev=router",
        "-netdev", f"socket,id=cable,connect=127.0.0.1:{plug}",
        "-netdev", "hubport,id=outside,hubid=0,netdev=cable",
    ]  # fmt: skip


@dataclass(eq=False)
class Port:
    """One plugged-in machine: a stream of frames, each after its length."""

    stream: socket.socket
    received: bytearray = field(default_factory=bytearray)
    waiting: bytearray = field(default_factory=bytearray)

    def read(self) -> list[bytes] | None:
        """Return the whole frames that came; None: it was unplugged, or is no network card."""
        try:
            chunk = self.stream.recv(RECEIVE_BYTES)
            self.received += chunk
            return take_frames(self.received) if chunk else None
        except BlockingIOError:
            return []
        except (OSError, ValueError):
            return None

    def send(self, frame: bytes) -> None:
        """Send, or keep for later, or drop what is too much."""
        if len(self.waiting) + len(frame) <= MOST_WAITING_BYTES:
            self.waiting += len(frame).to_bytes(LENGTH_BYTES, "big") + frame
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the stream takes it."""
        try:
            while self.waiting:
                del self.waiting[: self.stream.send(self.waiting)]
        except BlockingIOError:
            return
        except OSError:
            self.waiting.clear()  # unplugged: the next read says so


def take_frames(received: bytearray) -> list[bytes]:
    r"""Take the whole frames off the front; ValueError: none of QEMU's.

    >>> received = bytearray(b"\0\0\0\2ab\0\0\0\3c")
    >>> take_frames(received), bytes(received)
    ([b'ab'], b'\x00\x00\x00\x03c')
    """
    frames = []
    while len(received) >= LENGTH_BYTES:
        end = LENGTH_BYTES + int.from_bytes(received[:LENGTH_BYTES], "big")
        if end > LENGTH_BYTES + LONGEST_FRAME:
            raise ValueError(f"a frame of {end - LENGTH_BYTES} bytes")
        if len(received) < end:
            break
        frames.append(bytes(received[LENGTH_BYTES:end]))
        del received[:end]
    return frames


class Switch:
    """Learns who is where and gives each frame to its receiver alone, groups' and strangers' frames to all others."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.plug = int(self._listener.getsockname()[1])  # where QEMU's socket,connect= goes
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._ports: list[Port] = []
        self._where: dict[bytes, Port] = {}
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.close()
        self._thread.join()
        for port in list(self._ports):
            self._unplug(port)
        for end in (self._listener, self._woken):
            end.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, events in self._selector.select():
                if key.fileobj is self._woken:
                    return
                if key.fileobj is self._listener:
                    self._plug_in(self._listener.accept()[0])
                    continue
                port: Port = key.data
                if events & selectors.EVENT_WRITE:
                    port.flush()
                if events & selectors.EVENT_READ:
                    self._forward(port)
            for port in self._ports:
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.waiting else 0)
                self._selector.modify(port.stream, wanted, port)

    def _plug_in(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = Port(stream)
        self._ports.append(port)
        self._selector.register(stream, selectors.EVENT_READ, port)

    def _unplug(self, port: Port) -> None:
        self._ports.remove(port)
        self._where = {address: there for address, there in self._where.items() if there is not port}
        self._selector.unregister(port.stream)
        port.stream.close()

    def _forward(self, source: Port) -> None:
        frames = source.read()
        if frames is None:
            self._unplug(source)
            return
        for frame in frames:
            receiver, sender = frame[:ADDRESS_BYTES], frame[ADDRESS_BYTES : 2 * ADDRESS_BYTES]
            if len(sender) < ADDRESS_BYTES:
                continue
            self._where[sender] = source
            known = None if receiver[0] & GROUP_BIT else self._where.get(receiver)
            for port in [known] if known else self._ports:
                if port is not source:
                    port.send(frame)
