"""The head: answers for every subset, one file format, nothing that a damaged file could do."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.feature_message import MAX_FEATURE
from edge_agent.protocol.head import MAX_WEIGHT, MergeHead, SubsetHead, probabilities

numbers = st.floats(-100, 100, width=32)


def random_head(widths: tuple[int, ...], classes: int, masks: list[int], seed: int = 0) -> MergeHead:
    generator = np.random.default_rng(seed)
    heads = {}
    for mask in masks:
        width = sum(w for i, w in enumerate(widths) if mask >> i & 1)
        weights = generator.normal(size=(width, classes)).astype(np.float32)
        heads[mask] = SubsetHead(weights, generator.normal(size=classes).astype(np.float32), 1.0 + mask / 4)
    return MergeHead(widths, classes, heads, generator.normal(size=sum(widths)).astype(np.float32))


@st.composite
def merge_heads(draw: st.DrawFn) -> MergeHead:
    widths = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    full = (1 << len(widths)) - 1
    masks = draw(st.sets(st.integers(1, full))) | {full}
    return random_head(widths, draw(st.integers(2, 4)), sorted(masks), draw(st.integers(0, 2**16)))


def same(left: MergeHead, right: MergeHead) -> bool:
    return (
        (left.widths, left.classes, set(left.heads)) == (right.widths, right.classes, set(right.heads))
        and np.array_equal(left.mean, right.mean)
        and all(
            np.array_equal(head.weights, right.heads[mask].weights)
            and np.array_equal(head.bias, right.heads[mask].bias)
            and head.temperature == right.heads[mask].temperature
            for mask, head in left.heads.items()
        )
    )


@given(merge_heads())
def test_round_trip_and_equal_heads_give_equal_bytes(head: MergeHead) -> None:
    content = head.to_bytes()
    loaded = MergeHead.from_bytes(content, head.widths, head.classes)
    assert same(loaded, head)
    assert loaded.to_bytes() == content


def test_weights_in_column_order_are_stored_in_row_order() -> None:
    head = random_head((2, 3), 4, [3])
    turned = SubsetHead(np.asfortranarray(head.heads[3].weights), head.heads[3].bias, head.heads[3].temperature)
    content = MergeHead(head.widths, 4, {3: turned}, head.mean).to_bytes()
    assert content == head.to_bytes()


def test_numpy_reads_the_file_too() -> None:
    head = random_head((2, 3), 4, [1, 2, 3])
    with np.load(io.BytesIO(head.to_bytes()), allow_pickle=False) as arrays_:
        assert sorted(arrays_.files) == ["b1", "b2", "b3", "mean", "t1", "t2", "t3", "w1", "w2", "w3"]
        assert arrays_["w3"].shape == (5, 4)
        assert arrays_["t1"].shape == ()


def test_every_subset_is_answered_by_its_own_head() -> None:
    widths = (2, 3, 1)
    head = random_head(widths, 4, list(range(1, 8)))
    features = {i: np.arange(w, dtype=np.float32) + i for i, w in enumerate(widths)}
    for mask in range(1, 8):
        present = [i for i in range(3) if mask >> i & 1]
        expected = sum(
            features[i] @ head.heads[mask].weights[start : start + widths[i]]
            for i, start in zip(present, np.cumsum([0, *(widths[i] for i in present)]), strict=False)
        )
        # In any order of arrival: the order of students counts.
        logits, temperature = head.merge({i: features[i] for i in reversed(present)})
        assert np.allclose(logits, expected + head.heads[mask].bias, atol=1e-5)
        assert temperature == pytest.approx(1.0 + mask / 4)


def test_a_subset_without_a_head_of_its_own_is_filled_with_the_mean() -> None:
    head = random_head((2, 3), 4, [3])
    features = np.array([5.0, 6.0], np.float32)
    joined = np.concatenate([features, head.mean[2:]])
    logits, temperature = head.merge({0: features})
    assert np.allclose(logits, joined @ head.heads[3].weights + head.heads[3].bias, atol=1e-5)
    assert temperature == head.heads[3].temperature


@given(arrays(np.float32, st.integers(1, 12), elements=st.floats(-1e6, 1e6, width=32)), st.floats(1e-3, 1e3))
def test_probabilities_are_probabilities(logits: np.ndarray, temperature: float) -> None:
    result = probabilities(logits, temperature)
    assert np.isfinite(result).all()
    assert result.sum() == pytest.approx(1, abs=1e-5)
    assert logits[np.argmax(result)] == pytest.approx(logits.max(), rel=1e-3)


def test_the_largest_numbers_that_are_let_in_still_give_probabilities() -> None:
    width = 65_535
    weights = np.full((width, 2), MAX_WEIGHT, np.float32) * np.array([1, -1], np.float32)
    head = SubsetHead(weights, np.zeros(2, np.float32), 1e-3)
    merge = MergeHead((width,), 2, {1: head}, np.zeros(width, np.float32))
    logits, temperature = merge.merge({0: np.full(width, MAX_FEATURE, np.float32)})
    assert probabilities(logits, temperature).tolist() == [1.0, 0.0]


@given(merge_heads())
@settings(max_examples=25)
def test_every_truncation_is_refused(head: MergeHead) -> None:
    content = head.to_bytes()
    for length in range(0, len(content), 7):
        with pytest.raises(ManifestError):
            MergeHead.from_bytes(content[:length], head.widths, head.classes)


@given(merge_heads(), st.data())
def test_flipped_bits_raise_only_manifest_errors(head: MergeHead, data: st.DataObject) -> None:
    content = bytearray(head.to_bytes())
    for bit in data.draw(st.lists(st.integers(0, 8 * len(content) - 1), min_size=1, max_size=4)):
        content[bit // 8] ^= 1 << bit % 8
    try:
        loaded = MergeHead.from_bytes(bytes(content), head.widths, head.classes)
    except ManifestError:
        return
    # What passes is a bit that zip does not protect, such as a date; numbers are under a checksum.
    assert all(np.isfinite(entry.weights).all() for entry in loaded.heads.values())


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"PK\x03\x04" + tail))
def test_garbage_raises_only_manifest_errors(content: bytes) -> None:
    with pytest.raises(ManifestError):
        MergeHead.from_bytes(content, (2,), 2)


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


GOOD = {
    "mean.npy": npy(np.zeros(2, np.float32)),
    "w1.npy": npy(np.zeros((2, 3), np.float32)),
    "b1.npy": npy(np.zeros(3, np.float32)),
    "t1.npy": npy(np.float32(1)),
}
HUGE = npy(np.zeros((2, 3), np.float32)).replace(b"(2, 3), }      ", b"(99999999, 3), }"[:15])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"w1.npy": npy(np.zeros((3, 2), np.float32))}, "shape"),
        ({"w1.npy": npy(np.zeros((2, 3), np.float64))}, "float32"),
        ({"w1.npy": npy(np.zeros((2, 3), ">f4"))}, "little-endian"),
        ({"w1.npy": npy(np.asfortranarray(np.zeros((2, 3), np.float32)))}, "row order"),
        ({"w1.npy": npy(np.array([[object()]], object)[:0])}, "float32"),
        ({"w1.npy": npy(np.full((2, 3), np.nan, np.float32))}, "finite"),
        ({"w1.npy": npy(np.full((2, 3), 3e38, np.float32))}, "finite"),
        ({"w1.npy": HUGE}, "array"),
        ({"w1.npy": b""}, "float32"),
        ({"t1.npy": npy(np.float32(0))}, "t1"),
        ({"t1.npy": npy(np.float32(-1))}, "t1"),
        ({"t1.npy": npy(np.float32(np.nan))}, "t1"),
        ({"t1.npy": npy(np.ones(1, np.float32))}, "t1"),
        ({"w2.npy": npy(np.zeros((2, 3), np.float32))}, "subset"),
        ({"w" + "9" * 70 + ".npy": npy(np.zeros((2, 3), np.float32))}, "subset"),
        ({"mean.npy": npy(np.zeros(3, np.float32))}, "mean"),
    ],
)
def test_files_that_are_refused(change: dict[str, bytes], words: str) -> None:
    MergeHead.from_bytes(npz(GOOD), (2,), 3)
    with pytest.raises(ManifestError, match=words):
        MergeHead.from_bytes(npz({**GOOD, **change}), (2,), 3)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_every_array_is_needed(name: str) -> None:
    with pytest.raises(ManifestError, match=name.removesuffix(".npy").replace("w1", "w")):
        MergeHead.from_bytes(npz({key: value for key, value in GOOD.items() if key != name}), (2,), 3)


def test_a_zip_bomb_is_not_unpacked() -> None:
    bomb = npz({**GOOD, "w1.npy": npy(np.zeros((2**22, 3), np.float32))}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    with pytest.raises(ManifestError, match="compressed"):
        MergeHead.from_bytes(bomb, (2,), 3)


def test_names_that_mean_nothing_are_ignored() -> None:
    extra = npy(np.zeros(1, np.float32))
    content = npz({**GOOD, ".npy": extra, "w.npy": extra, "w٣.npy": extra, "w01.npy": extra, "note.npy": extra})
    assert set(MergeHead.from_bytes(content, (2,), 3).heads) == {1}
