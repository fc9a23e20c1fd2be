"""Newman modularity of a weighted graph, dense: matrix, score, worth of a move, best cut in two."""

import numpy as np
from numpy.typing import NDArray


def modularity_matrix(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """B_ij = (w_ij - k_i k_j / 2m) / 2m, so that Q = sum of B_ij over pairs in one part (Newman, PNAS 2006, eq. 3).

    weights: (filters, filters), symmetric, non-negative, zero diagonal. Zero when there is no edge.

    >>> modularity_matrix(np.array([[0.0, 1.0], [1.0, 0.0]])).tolist()
    [[-0.25, 0.25], [0.25, -0.25]]
    """
    degrees = weights.sum(axis=1)
    total = degrees.sum()
    if total == 0:
        return np.zeros_like(weights)
    shares = degrees / total
    matrix: NDArray[np.float64] = weights / total - np.outer(shares, shares)
    return matrix


def membership(student_of: NDArray[np.intp], students: int) -> NDArray[np.float64]:
    """(filters, students), 1 where the filter is the student's."""
    members: NDArray[np.float64] = (student_of[:, None] == np.arange(students)).astype(np.float64)
    return members


def modularity(matrix: NDArray[np.float64], student_of: NDArray[np.intp], students: int) -> float:
    """Q of an assignment, given the modularity matrix.

    >>> pairs = np.kron(np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> modularity(modularity_matrix(pairs), np.array([0, 0, 1, 1]), 2)
    0.5
    """
    members = membership(student_of, students)
    return float(((matrix @ members) * members).sum())


def move_gains(matrix: NDArray[np.float64], student_of: NDArray[np.intp], students: int) -> NDArray[np.float64]:
    """Change of Q when a filter moves to a student: (filters, students), 0 for the student that has it."""
    affinity = matrix @ membership(student_of, students)
    own = affinity[np.arange(len(matrix)), student_of]
    gains = 2 * (affinity - (own - np.diag(matrix))[:, None])
    gains[np.arange(len(matrix)), student_of] = 0
    return gains


def swap_gains(
    matrix: NDArray[np.float64], gains: NDArray[np.float64], student_of: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Change of Q when two filters of different students change places: (filters, filters), 0 inside a student."""
    to_other = gains[:, student_of]
    swaps = to_other + to_other.T - 4 * matrix
    swaps[student_of[:, None] == student_of] = 0
    return swaps


def leading_order(weights: NDArray[np.float64], members: NDArray[np.intp]) -> tuple[NDArray[np.intp], int]:
    """A community's filters along the leading eigenvector of its modularity matrix, and how many have a negative entry.

    B(g)_ij = B_ij - delta_ij sum over l in g of B_il, with B of the whole graph (Newman, PNAS 2006, eq. 6). `weights`
    is the whole graph's; ties keep the filters' own order.
    """
    inside = modularity_matrix(weights)[np.ix_(members, members)]
    inside -= np.diag(inside.sum(axis=1))
    vector = np.linalg.eigh(inside)[1][:, -1]
    # An eigenvector's sign is arbitrary; fixing it makes the answer independent of the LAPACK at hand.
    if vector[np.argmax(np.abs(vector))] < 0:
        vector = -vector
    return members[np.argsort(vector, kind="stable")], int((vector < 0).sum())
