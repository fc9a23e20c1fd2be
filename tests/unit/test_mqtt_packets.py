"""The MQTT codec against frozen bytes, against itself, cut anywhere, and with garbage."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.protocol.errors import DecodeError
from edge_agent.protocol.link import Message, Outgoing
from edge_agent.protocol.mqtt_packets import (
    Acknowledged,
    Delivered,
    Farewell,
    Login,
    LoginAnswer,
    Packet,
    Pong,
    Subscribed,
    encode_acknowledgement,
    encode_login,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
)
from edge_agent.protocol.mqtt_reader import PacketReader

topics = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0+#"), min_size=1, max_size=30)
outgoing = st.builds(
    Outgoing,
    topics,
    st.binary(max_size=300),
    st.integers(0, 1),
    st.booleans(),
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
    correlation=st.none() | st.binary(max_size=20),
    response_topic=st.none() | topics,
)


def read_all(stream: bytes, is_5: bool, cuts: list[int] | None = None) -> list[Packet]:
    reader, packets = PacketReader(is_5), []
    places = [0, *sorted(cuts or []), len(stream)]
    for start, stop in itertools.pairwise(places):
        packets += reader.feed(stream[start:stop])
    return packets


@given(st.lists(outgoing, max_size=6), st.booleans(), st.data())
def test_messages_come_back_wherever_the_stream_is_cut(sent: list[Outgoing], is_5: bool, data: st.DataObject) -> None:
    stream = b"".join(encode_publish(m, is_5, number + 1) for number, m in enumerate(sent))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    received = read_all(stream, is_5, cuts)
    for number, (message, packet) in enumerate(zip(sent, received, strict=True)):
        if message.qos:
            assert isinstance(packet, Delivered)
            assert packet.packet_id == number + 1
        got = packet.message if isinstance(packet, Delivered) else packet
        extras = (message.response_topic, message.correlation) if is_5 else (None, None)
        assert got == Message(message.topic, message.payload, message.retain, *extras)


@given(st.binary(max_size=200), st.booleans())
def test_garbage_raises_our_error_or_gives_packets(stream: bytes, is_5: bool) -> None:
    try:
        packets = read_all(stream, is_5)
    except DecodeError:
        return
    assert len(packets) <= len(stream)


@given(outgoing, st.booleans(), st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_message_raises_our_error_or_is_a_packet(
    message: Outgoing, is_5: bool, place: int, value: int
) -> None:
    stream = bytearray(encode_publish(message, is_5, 9))
    stream[place % len(stream)] = value
    try:
        read_all(bytes(stream), is_5)
    except DecodeError:
        return


# Written by hand from the standard's figures, and seen from mosquitto 2.0.11.
BROKER_PACKETS = [
    ("20020000", False, LoginAnswer(0)),
    ("20020005", False, LoginAnswer(5)),
    ("2009000006 22000a 210014".replace(" ", ""), True, LoginAnswer(0, None, 20, None)),
    ("2008000005 2700200000".replace(" ", ""), True, LoginAnswer(0, None, None, 2 * 2**20)),
    ("2006000003 13003c".replace(" ", ""), True, LoginAnswer(0, 60, None, None)),
    ("20020001", True, LoginAnswer(1)),
    ("40020102", True, Acknowledged(258)),
    ("4004010210 00".replace(" ", ""), True, Acknowledged(258, 0x10)),
    ("9004000100 87".replace(" ", ""), True, Subscribed((0x87,))),
    ("9003000101", False, Subscribed((1,))),
    ("d000", True, Pong()),
    ("b0020001", False, Pong()),
    ("e0018b", True, Farewell(0x8B)),
    ("e000", True, Farewell(0)),
]


@pytest.mark.parametrize(("stream", "is_5", "packet"), BROKER_PACKETS)
def test_what_a_broker_says(stream: str, is_5: bool, packet: Packet) -> None:
    raw = bytes.fromhex(stream)
    assert read_all(raw, is_5) == [packet]
    for place in range(len(raw)):
        assert read_all(raw, is_5, [place]) == [packet]


def test_logins_are_those_of_the_standard() -> None:
    assert encode_login(Login("a", 10), is_5=False).hex() == "100d00044d51545404" + "02" + "000a" + "000161"
    will = Outgoing("t", b"off", qos=1, retain=True)
    login = encode_login(Login("a", 10, "u", "p", will), is_5=True)
    assert login.hex() == (
        "102200044d51545405ee000a" + "052700400000" + "000161" + "00000174" + "00036f6666" + "000175" + "000170"
    )


def test_requests_are_those_of_the_standard() -> None:
    assert encode_subscribe(1, [("a/#", 1), ("b", 0)], is_5=True).hex() == "820d0001000003612f230100016200"
    assert encode_subscribe(1, [("a", 1)], is_5=False).hex() == "82060001000161" + "01"
    assert encode_unsubscribe(2, "a", is_5=True).hex() == "a206000200000161"
    assert encode_acknowledgement(258).hex() == "40020102"
    assert encode_publish(Outgoing("a", b"x", 1, True, expiry_s=2), True, 7, again=True).hex() == (
        "3b0c00016100070502000000" + "0278"
    )


@pytest.mark.parametrize("is_5", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, 64, 4096])
def test_a_message_longer_than_we_take_is_passed_over_and_acknowledged(is_5: bool, chunk: int) -> None:
    reader = PacketReader(is_5, max_bytes=500)
    small = Outgoing("a", b"small")
    stream = b"".join(
        encode_publish(m, is_5, 7)
        for m in (small, Outgoing("a/long", bytes(2000), qos=1), small, Outgoing("b", bytes(999)), small)
    )
    packets: list[Packet] = []
    for start in range(0, len(stream), chunk):
        packets += reader.feed(stream[start : start + chunk])
        assert reader._kept_bytes <= 500 + chunk
    message = Message("a", b"small", False)
    assert packets == [message, Delivered(7, None), message, message]
    assert reader.oversize == 2


@pytest.mark.parametrize(
    "stream", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x36\x05\0\1a\0\1", b"\x30\xff\xff\xff\xff\x01"]
)
def test_what_is_no_mqtt_is_refused(stream: bytes) -> None:
    with pytest.raises(DecodeError):
        read_all(stream, is_5=False)
