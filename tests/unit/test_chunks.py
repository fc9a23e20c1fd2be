import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.protocol.chunks import (
    CHUNK_BYTES,
    HEADER_BYTES,
    MAX_WINDOW,
    ChunkMap,
    ChunkWishes,
    chunk_length,
    decode_chunk,
    encode_chunk,
)
from edge_agent.protocol.errors import DecodeError, ProtocolError

sizes = st.integers(1, 40 * CHUNK_BYTES)


@given(st.binary(min_size=1, max_size=500))
def test_a_chunk_round_trips_and_no_truncation_passes(content):
    payload = encode_chunk(content)
    assert decode_chunk(payload) == content
    for length in range(len(payload)):
        with pytest.raises(ProtocolError):
            decode_chunk(payload[:length])


@given(st.binary(min_size=1, max_size=100), st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_chunk_is_refused(content, position, change):
    payload = bytearray(encode_chunk(content))
    payload[position % len(payload)] ^= change
    with pytest.raises(ProtocolError):
        decode_chunk(bytes(payload))


def test_a_chunk_that_is_too_long_is_refused():
    with pytest.raises(DecodeError):
        decode_chunk(encode_chunk(bytes(CHUNK_BYTES + 1)))
    assert HEADER_BYTES / CHUNK_BYTES < 0.001


@given(sizes, st.randoms(use_true_random=False))
def test_any_order_with_losses_and_repeats_completes_a_file(size, random):
    wishes, now, rounds = ChunkWishes(ChunkMap(size)), 0.0, 0
    content = {n: bytes(chunk_length(size, n)) for n in range(wishes.chunks.count)}
    while not wishes.complete:
        asked = wishes.ask(now)
        assert len(set(asked)) == len(asked)
        random.shuffle(asked)
        for number in asked:
            fate = random.random()
            if fate < 0.7:
                assert wishes.accept(number, content[number])
            if fate < 0.2:
                assert not wishes.accept(number, content[number])
        now += 20.0  # longer than any patience: what was lost is asked for again
        rounds += 1
        assert rounds < 2000
    assert wishes.ask(now) == []
    assert wishes.received == wishes.chunks.count


@given(sizes, st.floats(0, 0.9))
def test_at_most_a_window_is_under_way(size, now):
    wishes = ChunkWishes(ChunkMap(size))
    asked = wishes.ask(0.0)
    assert len(asked) == min(MAX_WINDOW, wishes.chunks.count)
    assert wishes.ask(now) == []  # nothing came, and it is too early to ask again
    assert sorted(wishes.ask(1.0)) == sorted(asked)


@given(sizes, st.data())
def test_a_map_remembers_what_was_there(size, data):
    chunks = ChunkMap(size)
    there = data.draw(st.sets(st.integers(0, chunks.count - 1)))
    for number in there:
        chunks.add(number)
    again = ChunkMap(size, chunks.to_bytes())
    assert again.missing() == [n for n in range(chunks.count) if n not in there]
    assert ChunkMap(size, chunks.to_bytes() + b"\1").missing() == list(range(chunks.count))


@given(st.integers(-3, 50), st.integers(0, CHUNK_BYTES + 1))
def test_chunks_of_another_length_or_number_are_refused(number, length):
    wishes = ChunkWishes(ChunkMap(3 * CHUNK_BYTES + 5))
    fits = 0 <= number <= 3 and length == (CHUNK_BYTES if number < 3 else 5)
    if not fits:
        with pytest.raises(DecodeError):
            wishes.accept(number, bytes(length))
