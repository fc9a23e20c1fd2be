"""Choose the partition: communities of the filter graph, or one of the two controls it must beat."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.exit_codes import UserError
from trainer.filter_graph import check_matrix
from trainer.partition.balance import WIDEST_RATIO, balanced
from trainer.partition.communities import RESOLUTIONS, as_labels, communities_by_resolution
from trainer.partition.modularity import modularity, modularity_matrix
from trainer.partition.result import Partition

Method = Literal["communities", "random", "contiguous"]
METHODS: tuple[str, ...] = get_args(Method)
HUBS_PER_STUDENT = 5


def partition_filters(
    matrix: NDArray[np.floating],
    students: int,
    method: Method = "communities",
    seed: int = 0,
    activity: NDArray[np.floating] | None = None,
) -> Partition:
    """Split the filters of F among `students` so that the sets are disjoint, covering and within 10 % of each other.

    matrix: (filters, filters) from `filter_activation_matrix`. activity: (filters,) or (classes, filters),
    non-negative, only reported. `communities` keeps the resolution whose balanced sets have the highest modularity;
    `random` and `contiguous` are the controls. The same arguments give the same answer.

    >>> pairs = np.kron(np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> found = partition_filters(pairs, 2)
    >>> found.filters, found.communities, found.modularity
    (((0, 1), (2, 3)), 2, 0.5)
    """
    weights = check_matrix(matrix)
    _check_request(len(weights), students, method)
    shares = _filter_shares(activity, len(weights))
    notes = []
    if method == "communities" and weights.max() == 0:
        notes.append(
            "no two filters were ever active together with different strength, so there are no communities; "
            "the sets are contiguous"
        )
    resolution, found, community_modularity = None, 0, 0.0
    if method == "communities" and weights.max() > 0:
        resolution, found, community_modularity, student_of = _best_communities(weights, students, seed)
    elif method == "random":
        student_of = np.random.default_rng(seed).permutation(_contiguous(len(weights), students))
    else:
        student_of = _contiguous(len(weights), students)
    student_of = _renumbered(student_of, students)
    sizes = np.bincount(student_of, minlength=students)
    if sizes.max() > WIDEST_RATIO * sizes.min():
        notes.append(
            f"{len(weights)} filters cannot be shared more evenly among {students} students: sizes differ by one"
        )
    hubs = [_hubs(weights, np.flatnonzero(student_of == student)) for student in range(students)]
    return Partition(
        filters=tuple(tuple(np.flatnonzero(student_of == student).tolist()) for student in range(students)),
        method=method,
        seed=seed,
        resolution=resolution,
        communities=found,
        community_modularity=community_modularity,
        modularity=modularity(modularity_matrix(weights), student_of, students),
        balance=float(sizes.min() / sizes.max()),
        activity_share=tuple(np.bincount(student_of, shares, students).tolist()) if shares is not None else (),
        hubs=tuple(filters for filters, _ in hubs),
        hub_degrees=tuple(degrees for _, degrees in hubs),
        note="; ".join(notes),
    )


def _check_request(filters: int, students: int, method: str) -> None:
    if method not in METHODS:
        raise UserError(f"partition method {method!r} is unknown; expected one of {', '.join(METHODS)}")
    if students < 1:
        raise UserError(f"{students} students asked for; expected at least 1")
    if students > filters:
        raise UserError(f"{students} students asked for, but LCONV has {filters} filters; expected at most {filters}")


def _filter_shares(activity: NDArray[np.floating] | None, filters: int) -> NDArray[np.float64] | None:
    """Each filter's share of all activity, (filters,); zero everywhere when nothing was active."""
    if activity is None:
        return None
    table = np.atleast_2d(np.asarray(activity, np.float64))
    if table.shape[1:] != (filters,) or not np.isfinite(table).all() or table.min() < 0:
        raise UserError(f"activity has shape {table.shape}; expected (classes, {filters}), finite and not negative")
    per_filter = table.sum(axis=0)
    shares: NDArray[np.float64] = per_filter / max(per_filter.sum(), np.finfo(float).tiny)
    return shares


def _best_communities(
    weights: NDArray[np.float64], students: int, seed: int
) -> tuple[float, int, float, NDArray[np.intp]]:
    """The balanced sets of highest modularity over the sweep; the first resolution wins a tie."""
    matrix = modularity_matrix(weights)
    best: tuple[float, int, float, NDArray[np.intp]] | None = None
    best_score = -np.inf
    resolutions = RESOLUTIONS if students > 1 else (1.0,)
    for resolution, communities in communities_by_resolution(weights, seed, resolutions):
        student_of = balanced(weights, communities, students)
        score = modularity(matrix, student_of, students)
        if score > best_score:
            labels = as_labels(communities, len(weights))
            raw = modularity(matrix, labels, len(communities))
            best, best_score = (resolution, len(communities), raw, student_of), score
    if best is None:
        raise UserError("the filter graph has no usable weights; expected finite activations")
    return best


def _contiguous(filters: int, students: int) -> NDArray[np.intp]:
    return np.arange(filters, dtype=np.intp) * students // filters


def _renumbered(student_of: NDArray[np.intp], students: int) -> NDArray[np.intp]:
    """Students in the order of their lowest filter, so that equal splits get equal numbers."""
    lowest = [int(np.flatnonzero(student_of == student)[0]) for student in range(students)]
    return np.argsort(np.argsort(lowest))[student_of]


def _hubs(weights: NDArray[np.float64], members: NDArray[np.intp]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    degrees = weights.sum(axis=1)
    ranked = members[np.argsort(-degrees[members], kind="stable")][:HUBS_PER_STUDENT]
    largest = max(float(degrees.max()), np.finfo(float).tiny)
    return tuple(ranked.tolist()), tuple((degrees[ranked] / largest).tolist())
