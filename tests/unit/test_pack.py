"""Packs: what goes in comes out, in order; broken ones are refused; nobody gets one who cannot read it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.packed_frames import PackedFrames
from coordinator.roster import Roster
from edge_agent.protocol import pack
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.status import NodeInfo, NodeState

# Anything but a pack may be in a pack: the first byte of all other layouts is below the mark.
messages = st.binary(min_size=1, max_size=40).map(lambda content: bytes((content[0] & 0x7F,)) + content[1:])


@given(st.lists(messages, max_size=200))
def test_payloads_carry_all_messages_in_their_order(given_messages: list[bytes]) -> None:
    payloads = list(pack.packed(given_messages))
    assert [one for payload in payloads for one in pack.decode_pack(payload)] == given_messages
    assert len(payloads) == -(-len(given_messages) // pack.MAX_MESSAGES)


@given(st.lists(messages, min_size=2, max_size=9), st.data())
def test_every_truncation_is_refused_or_empty(given_messages: list[bytes], data: st.DataObject) -> None:
    payload = pack.encode_pack(given_messages)
    cut = payload[: data.draw(st.integers(1, len(payload) - 1))]
    with pytest.raises(ProtocolError):
        pack.decode_pack(cut)


@given(st.binary(max_size=300))
def test_garbage_is_taken_as_one_message_or_refused(payload: bytes) -> None:
    try:
        found = pack.decode_pack(b"\x80" + payload)
    except ProtocolError:
        return
    assert pack.encode_pack(found) == b"\x80" + payload


def test_long_messages_go_in_packs_of_bounded_length_or_alone() -> None:
    sizes = [30_000, 30_000, 30_000, 70_000, 1]
    payloads = list(pack.packed([b"f" * size for size in sizes]))
    assert [[len(one) for one in pack.decode_pack(payload)] for payload in payloads] == [
        [30_000, 30_000], [30_000], [70_000], [1],
    ]  # fmt: skip
    assert all(len(payload) <= max(pack.MAX_PACK_BYTES, 70_000) for payload in payloads)


@pytest.mark.parametrize("wrong", [[], [b"a"], [b"a"] * 65, [b"a", b""], [b"a", b"\x80"]])
def test_what_is_no_pack_is_not_made_into_one(wrong: list[bytes]) -> None:
    with pytest.raises(ValueError, match="expected"):
        pack.encode_pack(wrong)


def test_frames_of_packs_are_known_until_they_are_answered_and_bounded() -> None:
    packed = PackedFrames(most=3)
    packed.add(("files", number) for number in range(5))
    assert [packed.take(("files", number)) for number in (1, 2, 4, 4)] == [False, True, True, False]
    assert not packed.take(("cam", 3))
    assert len(packed) == 1


def info(packs: int | None, students: bool = True) -> NodeInfo:
    student = {"student": 0, "network": "n", "engine": "e", "precision": "int8", "artifact": "a", "width": 1,
               "selftest_error": 0.0}  # fmt: skip
    return NodeInfo.model_validate(
        {"session": 1, "agent_version": "0", "deployment": "d", "students": (student,) * students, "machine": "m",
         "python": "3", "packs": packs}
    )  # fmt: skip


def test_one_device_that_cannot_read_packs_is_enough() -> None:
    roster = Roster()
    for name, packs in (("pi-0", 1), ("pi-1", None)):
        roster.state(name, NodeState(state="online", session=1))
        roster.info(name, info(packs))
    assert not roster.reads_packs(1)
    roster.info("pi-1", info(None, students=False))  # a camera reads no frames
    assert roster.reads_packs(1)
    roster.info("pi-1", info(2))  # a later version reads the earlier ones
    assert roster.reads_packs(1)
    roster.info("pi-1", info(None))
    roster.state("pi-1", NodeState(state="offline", session=1))
    assert roster.reads_packs(1)
