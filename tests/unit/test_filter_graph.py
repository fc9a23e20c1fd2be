"""The filter activation network against the formula written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from edge_agent.console.exit_codes import UserError
from trainer import filter_graph as fg


def written_out(activations: np.ndarray) -> np.ndarray:
    """F by the formula alone, one filter pair and image at a time."""
    images, filters = activations.shape
    matrix = np.zeros((filters, filters))
    for i in range(filters):
        for j in range(filters):
            for n in range(images):
                a, b = float(activations[n, i]), float(activations[n, j])
                matrix[i, j] += a * b * abs(a - b)
    return matrix


activity_arrays = npst.arrays(
    np.float32,
    npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.floats(0, 1, width=32).map(lambda x: 0.0 if x < 0.3 else x),
)


@settings(deadline=None)
@given(activity_arrays)
def test_matrix_is_the_formula(activations: np.ndarray) -> None:
    matrix = fg.filter_activation_matrix(activations)
    np.testing.assert_allclose(matrix, written_out(activations), rtol=1e-5, atol=1e-7)
    assert (matrix == matrix.T).all()
    assert not matrix.diagonal().any()
    assert matrix.dtype == np.float64


@pytest.mark.parametrize("silent", [0.0, 0.5, 0.97])
def test_strips_and_silent_images_change_nothing(silent: float, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    activations = (random.random((700, 33)) * (random.random((700, 33)) >= silent)).astype(np.float32)
    a = activations.astype(np.float64)
    expected = np.array([[(a[:, i] * a[:, j] * abs(a[:, i] - a[:, j])).sum() for j in range(33)] for i in range(33)])
    for strip_bytes in (1, 4 * 33 * 100, 1 << 20):
        monkeypatch.setattr(fg, "STRIP_BYTES", strip_bytes)
        np.testing.assert_allclose(fg.filter_activation_matrix(activations), expected, rtol=1e-5)


def test_order_of_images_and_filters_does_not_matter() -> None:
    random = np.random.default_rng(5)
    activations = random.random((200, 17), dtype=np.float32)
    filters, images = random.permutation(17), random.permutation(200)
    straight = fg.filter_activation_matrix(activations)
    shuffled = fg.filter_activation_matrix(activations[images][:, filters])
    np.testing.assert_allclose(shuffled, straight[np.ix_(filters, filters)], rtol=1e-5)


def test_memory_stays_bounded() -> None:
    import tracemalloc

    activations = np.random.default_rng(0).random((20_000, 64), dtype=np.float32)
    tracemalloc.start()
    fg.filter_activation_matrix(activations)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The transposed copy is as large as the input; a (filters, filters, images) temporary would be 64 times that.
    assert peak < 1.5 * activations.nbytes + 8 * fg.STRIP_BYTES


@settings(deadline=None)
@given(
    npst.arrays(np.float32, (5, 7), elements=st.floats(-4, 4, width=32)),
    st.one_of(st.none(), st.integers(1, 9)),
)
def test_normalised_activations_are_shares_of_the_images_own_maximum(raw: np.ndarray, top_k: int | None) -> None:
    shares = fg.normalise_activations(raw, top_k)
    assert shares.min() >= 0
    for image, share in zip(raw, shares, strict=True):
        assert share.max() == (1 if image.max() > 0 else 0)
        assert not share[image <= 0].any()
        if top_k is not None and len(set(image.tolist())) == 7:
            assert np.count_nonzero(share) <= top_k
        kept = share > 0
        if kept.any():
            # Subnormal numbers have no relative precision to speak of.
            np.testing.assert_allclose(share[kept] * image.max(), image[kept], rtol=1e-5, atol=1e-36)
            assert image[kept].min() >= image[~kept & (image > 0)].max(initial=0)


def test_normalising_leaves_the_callers_array_alone() -> None:
    raw = np.array([[3.0, -1.0, 2.0]], dtype=np.float32)
    fg.normalise_activations(raw, top_k=1)
    assert raw.tolist() == [[3.0, -1.0, 2.0]]


def test_class_activity_is_the_mean_over_each_class() -> None:
    activations = np.random.default_rng(1).random((50, 6))
    labels = np.arange(50) % 3
    table = fg.class_activity(activations, labels, 4)
    for label in range(3):
        np.testing.assert_allclose(table[label], activations[labels == label].mean(axis=0), rtol=1e-6)
    assert not table[3].any()


def test_graph_has_every_filter_and_the_weights_of_f() -> None:
    matrix = fg.filter_activation_matrix(np.random.default_rng(2).random((9, 12)))
    matrix[4] = matrix[:, 4] = 0
    graph = fg.filter_graph(matrix)
    assert sorted(graph) == list(range(12))
    assert graph.degree(4) == 0
    assert {(i, j): w for i, j, w in graph.edges(data="weight")} == {
        (i, j): matrix[i, j] for i in range(12) for j in range(i + 1, 12) if matrix[i, j] > 0
    }


def test_saved_graph_comes_back(tmp_path) -> None:
    matrix = fg.filter_activation_matrix(np.random.default_rng(2).random((9, 5)))
    activity = np.random.default_rng(3).random((2, 5))
    fg.save_filter_graph(tmp_path / "graph.npz", matrix, activity)
    again, table = fg.load_filter_graph(tmp_path / "graph.npz")
    np.testing.assert_array_equal(again, matrix)
    np.testing.assert_array_equal(table, activity)
    assert [path.name for path in tmp_path.iterdir()] == ["graph.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"hello"], ids=["empty", "truncated", "other"])
def test_a_broken_graph_file_is_one_clear_error(tmp_path, content: bytes) -> None:
    (tmp_path / "graph.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"graph\.npz is not a filter graph"):
        fg.load_filter_graph(tmp_path / "graph.npz")


def test_a_missing_graph_file_and_a_misfitting_table_say_so(tmp_path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        fg.load_filter_graph(tmp_path / "none.npz")
    np.savez(tmp_path / "g.npz", matrix=np.zeros((3, 3)), activity=np.zeros((2, 4)))
    with pytest.raises(UserError, match=r"expected \(classes, 3\)"):
        fg.load_filter_graph(tmp_path / "g.npz")


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        (np.zeros((0, 4)), "expected .images, filters."),
        (np.zeros(4), "expected .images, filters."),
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), "image 1 have NaN"),
        (np.array([[1.0, -2.0]]), "reach -2"),
    ],
)
def test_unusable_activations_are_refused(activations: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fg.filter_activation_matrix(activations)


def test_top_k_below_one_and_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="top_k is 0"):
        fg.normalise_activations(np.ones((1, 2)), top_k=0)
    with pytest.raises(UserError, match=r"expected one of 0\.\.1"):
        fg.class_activity(np.ones((2, 2)), np.array([0, 2]), 2)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((2, 3)), "expected .filters, filters."),
        (np.array([[0, np.nan], [np.nan, 0]]), "NaN or infinity in row 0"),
        (np.array([[0, -1.0], [-1.0, 0]]), "negative weight -1"),
        (np.array([[0, 1.0], [2.0, 0]]), "not symmetric"),
    ],
)
def test_an_impossible_matrix_is_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fg.check_matrix(matrix)


def test_importing_needs_no_tensorflow() -> None:
    import subprocess
    import sys

    program = "import sys, trainer.filter_graph, trainer.partition; print({'tensorflow', 'keras'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"
