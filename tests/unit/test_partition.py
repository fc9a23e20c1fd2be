"""Partitions are disjoint, covering, exactly K, balanced and repeatable, whatever the graph."""

import json
import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.console.exit_codes import UserError
from trainer.filter_graph import filter_activation_matrix
from trainer.partition import METHODS, Partition, partition_filters
from trainer.partition.balance import balanced, size_bounds
from trainer.partition.modularity import leading_order, modularity, modularity_matrix, move_gains, swap_gains


@st.composite
def graphs(draw: st.DrawFn, largest: int = 20) -> np.ndarray:
    """Filter matrices from sparse to complete, with isolated filters and groups of them."""
    filters = draw(st.integers(1, largest))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = random.gamma(draw(st.sampled_from([0.1, 1.0, 10.0])), size=(filters, filters))
    weights *= random.random((filters, filters)) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    groups = random.integers(0, draw(st.integers(1, 4)), filters)
    weights[groups[:, None] != groups] *= draw(st.sampled_from([0.0, 0.1, 1.0]))
    upper = np.triu(weights, 1)
    return upper + upper.T


@settings(deadline=None, max_examples=150)
@given(graphs(), st.data(), st.sampled_from(METHODS), st.integers(0, 3))
def test_every_partition_keeps_the_promises(matrix: np.ndarray, data: st.DataObject, method: str, seed: int) -> None:
    filters = len(matrix)
    students = data.draw(st.integers(1, filters))
    found = partition_filters(matrix, students, method, seed)
    assert found.students == students
    assert sorted(f for part in found.filters for f in part) == list(range(filters))
    assert all(part == tuple(sorted(part)) and part for part in found.filters)
    smallest, largest = min(found.sizes), max(found.sizes)
    assert largest <= 1.1 * smallest or (largest - smallest == 1 and "cannot be shared more evenly" in found.note)
    assert found.balance == smallest / largest
    assert found == partition_filters(matrix.copy(), students, method, seed)
    assert found == Partition.from_dict(json.loads(json.dumps(found.to_dict())))
    if matrix.any():
        graph = nx.from_numpy_array(matrix)
        expected = nx.community.modularity(graph, [set(part) for part in found.filters])
        assert found.modularity == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 2000), st.data())
def test_size_bounds_can_always_be_met(filters: int, data: st.DataObject) -> None:
    students = data.draw(st.integers(1, filters))
    smallest, largest = size_bounds(filters, students)
    assert 1 <= smallest <= filters // students
    assert math.ceil(filters / students) <= largest
    assert largest <= 1.1 * smallest or largest - smallest <= 1


def planted(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Activities in which groups of filters answer to their own images; the matrix and the group of each filter."""
    random = np.random.default_rng(seed)
    group = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    image_group = random.integers(0, len(sizes), 400)
    loud = random.random((400, len(group)))
    activations = loud * np.where(image_group[:, None] == group, 1.0, 0.05)
    return filter_activation_matrix(activations), group


def test_planted_groups_are_found() -> None:
    matrix, group = planted([20, 20, 20, 20])
    found = partition_filters(matrix, 4)
    assert found.communities == 4
    assert sorted(map(set, found.filters), key=min) == sorted(
        (set(np.flatnonzero(group == g).tolist()) for g in range(4)), key=min
    )


def test_whole_groups_stay_together_when_students_are_fewer() -> None:
    matrix, group = planted([20, 20, 20, 20])
    found = partition_filters(matrix, 2)
    assert all(len({int(group[f]) for f in part}) == 2 for part in found.filters)


def test_a_group_too_large_for_one_student_is_cut() -> None:
    matrix, _ = planted([60, 12, 8])
    found = partition_filters(matrix, 4)
    assert max(found.sizes) <= 1.1 * min(found.sizes)
    assert found.modularity > partition_filters(matrix, 4, "contiguous").modularity


@pytest.mark.parametrize("students", [2, 3, 5, 8])
def test_communities_beat_the_controls_in_modularity(students: int) -> None:
    matrix, _ = planted([30, 22, 14, 9, 5], seed=students)
    scores = {method: partition_filters(matrix, students, method).modularity for method in METHODS}
    assert scores["communities"] > max(scores["random"], scores["contiguous"])


def test_gains_are_the_differences_of_modularity() -> None:
    matrix, _ = planted([9, 7, 5])
    b = modularity_matrix(matrix)
    student_of = np.random.default_rng(0).integers(0, 3, 21)
    before = modularity(b, student_of, 3)
    gains = move_gains(b, student_of, 3)
    swaps = swap_gains(b, gains, student_of)
    for i in range(21):
        for student in range(3):
            moved = student_of.copy()
            moved[i] = student
            assert gains[i, student] == pytest.approx(modularity(b, moved, 3) - before, abs=1e-12)
        for j in range(21):
            swapped = student_of.copy()
            swapped[[i, j]] = student_of[[j, i]]
            assert swaps[i, j] == pytest.approx(modularity(b, swapped, 3) - before, abs=1e-12)


def test_no_swap_is_left_that_would_help() -> None:
    matrix, _ = planted([13, 12, 8, 6, 5])
    b = modularity_matrix(matrix)
    student_of = balanced(matrix, [np.arange(44)], 4)
    assert swap_gains(b, move_gains(b, student_of, 4), student_of).max() < 1e-9


def test_the_leading_eigenvector_cuts_two_cliques_apart() -> None:
    matrix = np.kron(np.eye(2), np.ones((5, 5))) - np.eye(10)
    matrix[4, 5] = matrix[5, 4] = 0.1
    ordered, negative = leading_order(matrix, np.arange(10))
    assert negative == 5
    assert {frozenset(ordered[:5].tolist()), frozenset(ordered[5:].tolist())} == {
        frozenset(range(5)),
        frozenset(range(5, 10)),
    }


def test_hubs_and_activity_are_those_of_the_students_filters() -> None:
    matrix, _ = planted([16, 16])
    activity = np.random.default_rng(1).random((3, 32))
    found = partition_filters(matrix, 2, activity=activity)
    degrees = matrix.sum(axis=1)
    for part, hubs, strengths in zip(found.filters, found.hubs, found.hub_degrees, strict=True):
        assert list(hubs) == sorted(part, key=lambda f: -degrees[f])[:5]
        np.testing.assert_allclose(strengths, degrees[list(hubs)] / degrees.max())
    assert sum(found.activity_share) == pytest.approx(1)
    expected = activity.sum(axis=0)[list(found.filters[1])].sum() / activity.sum()
    assert found.activity_share[1] == pytest.approx(expected)
    assert partition_filters(matrix, 2).activity_share == ()


def test_seeds_matter_to_random_sets_and_student_of_inverts_them() -> None:
    matrix, _ = planted([16, 16])
    first, second = (partition_filters(matrix, 4, "random", seed) for seed in (1, 2))
    assert first.filters != second.filters
    assert [f for f, s in enumerate(first.student_of) if s == 2] == list(first.filters[2])


def test_a_silent_network_gets_contiguous_sets_and_says_why() -> None:
    found = partition_filters(np.zeros((6, 6)), 2)
    assert found.filters == ((0, 1, 2), (3, 4, 5))
    assert "no communities" in found.note
    assert found.modularity == 0


def test_scaling_the_matrix_changes_nothing() -> None:
    matrix, _ = planted([12, 9, 6])
    assert partition_filters(matrix, 3).filters == partition_filters(matrix * 1e-9, 3).filters


@pytest.mark.parametrize(
    ("matrix", "students", "method", "message"),
    [
        (np.ones((3, 3)), 4, "communities", "4 students asked for, but LCONV has 3 filters"),
        (np.ones((3, 3)), 0, "communities", "expected at least 1"),
        (np.ones((3, 3)), 2, "best", "expected one of communities, random, contiguous"),
        (np.full((3, 3), np.nan), 2, "communities", "NaN"),
        (-np.ones((3, 3)), 2, "communities", "negative"),
        (np.ones((3, 2)), 2, "communities", "shape"),
    ],
)
def test_what_cannot_be_split_is_refused(matrix: np.ndarray, students: int, method: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        partition_filters(matrix, students, method)


def test_activity_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"expected \(classes, 3\)"):
        partition_filters(np.ones((3, 3)), 2, activity=np.ones((2, 4)))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 9},
        {"filters": [[0, 1], [1, 2]]},
        {"filters": [[0, 1, 2], []]},
        {"filters": [[1, 0], [2]]},
        {"filters": 3},
        {"extra": 1},
    ],
)
def test_a_partition_file_that_was_tampered_with_is_refused(change: dict) -> None:
    content = partition_filters(np.ones((3, 3)), 2).to_dict()
    with pytest.raises(UserError):
        Partition.from_dict(content | change)
