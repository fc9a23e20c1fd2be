"""A TCP proxy between a client and the broker that cuts, slows, and harms MQTT packets on the way."""

import asyncio
import random
import threading
from dataclasses import dataclass


@dataclass
class Harm:
    """What the proxy does; change it while it runs. Parts are of QoS 0 messages."""

    refuse: bool = False
    delay_s: float = 0.0
    lose: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    truncate: float = 0.0
    scramble: float = 0.0


class ManglingProxy:
    """Listens on `port` in a thread of its own; `harm` is read for every packet."""

    def __init__(self, target_port: int, seed: int) -> None:
        self.harm = Harm()
        self.port = 0
        self._target_port = target_port
        self._random = random.Random(seed)
        self._ready = threading.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def cut(self) -> None:
        """Break every connection; further ones follow `harm.refuse`."""
        self._loop.call_soon_threadsafe(self._cut)

    def close(self) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        self._cut()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.harm.refuse:
            writer.transport.abort()
            return
        try:
            broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, broker_writer}
        await asyncio.gather(self._pump(reader, broker_writer), self._pump(broker_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = b""
        try:
            while True:
                packet = await _read_packet(reader)
                outgoing, held = self._harmed(packet, held)
                if outgoing:
                    self._loop.call_later(self.harm.delay_s, _write, writer, outgoing)
        except (asyncio.IncompleteReadError, OSError):
            self._loop.call_later(self.harm.delay_s, writer.transport.abort)

    def _harmed(self, packet: bytes, held: bytes) -> tuple[bytes, bytes]:
        """Bytes to send now, and a packet that waits until after the next one."""
        harm, chance = self.harm, self._random
        if packet[0] & 0xF6 != 0x30:  # only PUBLISH with QoS 0: others have their own recovery
            return packet + held, b""
        if chance.random() < harm.lose:
            return held, b""
        if chance.random() < harm.truncate:
            packet = _with_payload(packet, lambda body: body[: chance.randrange(len(body) + 1)])
        if chance.random() < harm.scramble:
            packet = _with_payload(packet, lambda body: chance.randbytes(len(body)))
        if chance.random() < harm.repeat:
            packet += packet
        if not held and chance.random() < harm.reorder:
            return b"", packet
        return packet + held, b""


def _write(writer: asyncio.StreamWriter, content: bytes) -> None:
    if not writer.is_closing():
        writer.write(content)


async def _read_packet(reader: asyncio.StreamReader) -> bytes:
    first = await reader.readexactly(1)
    length, header = 0, bytearray(first)
    for shift in (0, 7, 14, 21):
        byte = (await reader.readexactly(1))[0]
        header.append(byte)
        length |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
    return bytes(header) + await reader.readexactly(length)


def _with_payload(packet: bytes, change: object) -> bytes:
    """The packet with its application payload changed: topic and properties stay whole."""
    start = 2
    while packet[start - 1] & 0x80:
        start += 1
    topic_end = start + 2 + int.from_bytes(packet[start : start + 2])
    properties_end = topic_end + 1 + packet[topic_end]  # MQTT 5, short property lists as ours
    body = packet[start:properties_end] + change(packet[properties_end:])  # type: ignore[operator]
    length, encoded = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return packet[:1] + bytes(encoded) + body
