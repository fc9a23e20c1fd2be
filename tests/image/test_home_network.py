"""The network between emulated cards, with plain sockets in place of their network cards."""

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_images import programs
from firmware_images.home_network import (
    FIRST_ADDRESS,
    LENGTH_BYTES,
    LONGEST_FRAME,
    MOST_WAITING_BYTES,
    ROUTERS,
    Switch,
    router_command,
    take_frames,
)  # fmt: skip

ALL = b"\xff" * 6
MULTICAST = bytes.fromhex("01005e0000fb")  # mDNS
HUB, AGENT, ROUTER = (bytes.fromhex(f"52540000000{n}") for n in range(1, 4))
PATIENCE_S = 10.0
SILENCE_S = 0.2


class NetworkCard:
    """A machine's end of a cable, as QEMU's `socket,connect=` speaks."""

    def __init__(self, switch: Switch, mac: bytes) -> None:
        self.mac = mac
        self._stream = socket.create_connection(("127.0.0.1", switch.plug), PATIENCE_S)
        self._received = bytearray()
        self._frames: list[bytes] = []

    def send(self, receiver: bytes, content: bytes) -> bytes:
        frame = receiver + self.mac + content
        self._stream.sendall(len(frame).to_bytes(LENGTH_BYTES, "big") + frame)
        return frame

    def send_raw(self, content: bytes) -> None:
        self._stream.sendall(content)

    def receive(self, timeout_s: float = PATIENCE_S) -> bytes | None:
        """The next frame; None: nothing came."""
        self._stream.settimeout(timeout_s)
        while not self._frames:
            try:
                chunk = self._stream.recv(65_536)
            except TimeoutError:
                return None
            if not chunk:
                raise ConnectionError("the switch unplugged this card")
            self._received += chunk
            self._frames += take_frames(self._received)
        return self._frames.pop(0)

    def unplug(self) -> None:
        self._stream.close()


@pytest.fixture
def switch() -> Iterator[Switch]:
    with Switch() as switch:
        yield switch


@pytest.fixture
def cards(switch: Switch) -> Iterator[tuple[NetworkCard, NetworkCard, NetworkCard]]:
    """Hub, agent and router, each known to the switch."""
    with ExitStack() as stack:
        three = tuple(NetworkCard(switch, mac) for mac in (HUB, AGENT, ROUTER))
        for card in three:
            stack.callback(card.unplug)
        hub, agent, router = three
        # The last one was plugged in once the switch hears it, so all are.
        router.send(ALL, b"first")
        assert hub.receive()
        assert agent.receive()
        for card in three:
            hello = card.send(ALL, b"hello")
            assert [other.receive() for other in three if other is not card] == [hello, hello]
        yield hub, agent, router


def test_a_card_is_heard_by_whom_it_speaks_to_and_the_router_hears_nothing_of_it(
    cards: tuple[NetworkCard, NetworkCard, NetworkCard],
) -> None:
    hub, agent, router = cards
    question = agent.send(HUB, b"connect")
    assert hub.receive() == question
    answer = hub.send(AGENT, b"accept")
    assert agent.receive() == answer
    assert router.receive(SILENCE_S) is None


@pytest.mark.parametrize("receiver", [ALL, MULTICAST, bytes.fromhex("525400abcdef")])
def test_groups_and_strangers_are_looked_for_everywhere_but_where_they_are_called_from(
    cards: tuple[NetworkCard, NetworkCard, NetworkCard], receiver: bytes
) -> None:
    hub, agent, router = cards
    call = agent.send(receiver, b"edge-hub.local?")
    assert hub.receive() == router.receive() == call
    assert agent.receive(SILENCE_S) is None


def test_a_card_that_starts_again_is_found_at_its_new_plug(
    switch: Switch, cards: tuple[NetworkCard, NetworkCard, NetworkCard]
) -> None:
    hub, agent, router = cards
    agent.unplug()
    again = NetworkCard(switch, AGENT)
    hello = again.send(HUB, b"again")
    assert hub.receive() == hello
    answer = hub.send(AGENT, b"welcome")
    assert again.receive() == answer
    assert router.receive(SILENCE_S) is None
    again.unplug()


def test_a_card_that_does_not_read_loses_frames_and_holds_up_nobody(
    cards: tuple[NetworkCard, NetworkCard, NetworkCard],
) -> None:
    hub, agent, router = cards
    sent = 20 * MOST_WAITING_BYTES // 60_000  # more than switch and kernel keep
    for number in range(sent):
        agent.send(HUB, number.to_bytes(4, "big") * 15_000)
    assert router.send(AGENT, b"still there?") == agent.receive()
    kept = 0
    while hub.receive(SILENCE_S) is not None:
        kept += 1
    assert 0 < kept < sent


def test_what_is_no_network_card_is_unplugged(
    switch: Switch, cards: tuple[NetworkCard, NetworkCard, NetworkCard]
) -> None:
    stranger = NetworkCard(switch, b"")
    stranger.send_raw(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ConnectionError):
        stranger.receive()
    stranger.unplug()
    short = NetworkCard(switch, b"")
    short.send(b"", b"short")
    hub, agent, _ = cards
    assert agent.send(HUB, b"undisturbed") == hub.receive()
    short.unplug()


@given(st.lists(st.binary(max_size=100), max_size=10), st.lists(st.integers(1, 50), max_size=30))
def test_frames_are_whole_however_the_stream_is_cut(frames: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(len(frame).to_bytes(LENGTH_BYTES, "big") + frame for frame in frames)
    received, taken = bytearray(), []
    for size in [*cuts, len(stream)]:
        received += stream[:size]
        stream = stream[size:]
        taken += take_frames(received)
    assert taken == frames
    assert not received


def test_a_length_that_no_frame_has_is_refused() -> None:
    with pytest.raises(ValueError, match="a frame of 65555 bytes"):
        take_frames(bytearray((LONGEST_FRAME + 1).to_bytes(LENGTH_BYTES, "big")))


def discover(mac: bytes) -> bytes:
    """A DHCPDISCOVER, from Ethernet's type on."""
    options = b"\x63\x82\x53\x63\x35\x01\x01\xff"
    bootp = struct.pack("!4BI2H4I", 1, 1, 6, 0, 77, 0, 0x8000, 0, 0, 0, 0) + mac.ljust(16, b"\0") + bytes(192) + options
    udp = struct.pack("!4H", 68, 67, 8 + len(bootp), 0) + bootp
    head = struct.pack("!2B3H2BH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    total = sum(struct.unpack("!10H", head))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return b"\x08\x00" + head[:10] + checksum.to_bytes(2, "big") + head[12:] + udp


def test_the_router_gives_the_first_device_the_address_that_ports_are_forwarded_to(switch: Switch) -> None:
    if not programs.is_installed("qemu-system-aarch64"):
        pytest.skip("needs qemu-system-aarch64 (package qemu-system-arm)")
    router = subprocess.Popen(router_command("router", switch.plug, {}), stderr=subprocess.DEVNULL)
    card = NetworkCard(switch, HUB)
    try:
        given_address = None
        for _ in range(100):  # it is not plugged in from the first moment on
            card.send(ALL, discover(HUB))
            while given_address is None and (frame := card.receive(SILENCE_S)) is not None:
                if frame[12:14] == b"\x08\x00" and frame[34:36] == b"\x00\x43":  # IPv4, from the port of DHCP
                    given_address = socket.inet_ntoa(frame[58:62])
            if given_address is not None:
                break
        assert given_address == FIRST_ADDRESS
    finally:
        router.kill()
        router.wait()
        card.unplug()


def test_the_router_forwards_what_it_is_told() -> None:
    words = " ".join(router_command("router", 1234, {4000: 22, 4001: 8883}))
    assert f"hostfwd=tcp:127.0.0.1:4000-{FIRST_ADDRESS}:22,hostfwd=tcp:127.0.0.1:4001-{FIRST_ADDRESS}:8883" in words
    assert "connect=127.0.0.1:1234" in words
    assert "ipv4=off" in " ".join(router_command("ipv6", 1234, {}))
    assert set(ROUTERS) == {"router", "ipv6"}
