"""What the report draws: the filter graph, favourites, the matrix, charts."""

import re

import numpy as np
import pytest
from PIL import Image

from trainer.filter_graph import filter_activation_matrix
from trainer.partition import partition_filters
from trainer.report.charts import Line, line_chart, nice_ticks
from trainer.report.graph_layout import node_places, strongest_links
from trainer.report.pictures import favourites, matrix_picture, partition_shares

FILTERS, STUDENTS = 24, 3
CLASSES = ("ant", "bee & wasp", "cat")


def matrix_of(filters: int, seed: int = 0) -> np.ndarray:
    return filter_activation_matrix(np.random.default_rng(seed).random((50, filters)))


@pytest.mark.parametrize(("filters", "students"), [(1, 1), (2, 2), (5, 1), (40, 4), (200, 9)])
def test_places_are_inside_the_picture_and_apart(filters: int, students: int) -> None:
    matrix = matrix_of(filters)
    student_of = np.array(partition_filters(matrix, students, "contiguous").student_of)
    places = node_places(matrix, student_of)
    assert places.shape == (filters, 2)
    assert np.isfinite(places).all()
    assert places.min() >= 0
    assert places.max() <= 1
    distances = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(filters)
    assert distances.min() > 0.1 / filters**0.5 / 4 or filters == 1
    np.testing.assert_array_equal(places, node_places(matrix, student_of))


def test_students_that_are_communities_form_islands() -> None:
    student_of = np.arange(60) % 3
    matrix = matrix_of(60) * np.where(student_of[:, None] == student_of, 1.0, 0.2)
    places = node_places(matrix, student_of)
    centres = np.stack([places[student_of == s].mean(axis=0) for s in range(3)])
    nearest = np.linalg.norm(places[:, None] - centres[None], axis=2).argmin(axis=1)
    assert np.mean(nearest == student_of) > 0.9


def test_links_are_the_heaviest_of_each_node() -> None:
    matrix = matrix_of(12)
    pairs = {tuple(pair) for pair in strongest_links(matrix, 2).tolist()}
    for node in range(12):
        for partner in np.argsort(-matrix[node])[:2]:
            assert (min(node, int(partner)), max(node, int(partner))) in pairs


def test_favourites_are_the_images_of_the_largest_share() -> None:
    random = np.random.default_rng(0)
    activations = random.random((60, 6))
    partition = partition_filters(filter_activation_matrix(activations), 2)

    class Split:
        images = random.integers(0, 255, (60, 4, 4, 1), dtype=np.uint8)
        labels = np.arange(60) % 3

    groups = favourites(activations, partition, Split, ("a", "b", "c"))
    shares = partition_shares(activations, partition)
    for student, liked in enumerate(groups):
        assert len(liked) == 18
        assert liked[0].share == pytest.approx(shares[:, student].max())
        assert [image.share for image in liked] == sorted((image.share for image in liked), reverse=True)
        assert max(sum(image.label == c for image in liked) for c in "abc") <= 6


def test_the_matrix_picture_orders_filters_by_student_and_hub() -> None:
    import base64
    import io

    matrix = matrix_of(20)
    partition = partition_filters(matrix, 2)
    picture = Image.open(io.BytesIO(base64.b64decode(matrix_picture(matrix, partition).split(",")[1])))
    step = picture.width // 20
    pixels = np.asarray(picture)[step // 2 :: step, step // 2 :: step]
    degrees = matrix.sum(axis=1)
    order = [f for part in partition.filters for f in sorted(part, key=lambda f: -degrees[f])]
    expected = np.sqrt(matrix[np.ix_(order, order)] / np.percentile(matrix[matrix > 0], 99.5)).clip(0, 1)
    np.testing.assert_allclose(pixels[..., 3] / 255, expected, atol=0.003)
    size = partition.sizes[0]
    assert len(np.unique(pixels[:size, :size, :3].reshape(-1, 3), axis=0)) == 1
    assert (pixels[:size, size:, :3] == 128).all()


def test_a_chart_of_nothing_is_nothing_and_gaps_are_skipped() -> None:
    assert line_chart("t", [Line("a", "#000", [])], []) == ""
    assert line_chart("t", [Line("a", "#000", [None, float("nan")])], [1, 2]) == ""
    drawn = line_chart("t", [Line("a", "#000", [1.0, None, 3.0])], [1, 2, 3])
    assert len(re.search(r'points="([^"]*)"', drawn)[1].split()) == 2


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.913, 0.917), (-3, 5), (7, 7), (0, 0), (1e-6, 2e-6), (12, 48_000)])
def test_ticks_cover_the_range_and_are_few(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
    assert 2 <= len(ticks) <= 8
