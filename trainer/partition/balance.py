"""From communities of any size to exactly K sets of nearly equal size, losing as little modularity as possible."""

import math

import numpy as np
from numpy.typing import NDArray

from trainer.partition.communities import Communities
from trainer.partition.modularity import leading_order, modularity_matrix, move_gains, swap_gains

# Students learn about the same number of filters: largest size / smallest size.
WIDEST_RATIO = 1.1
# Gains below this share of Q (at most 1) are rounding; accepting them could cycle.
SMALLEST_GAIN = 1e-12


def size_bounds(filters: int, students: int) -> tuple[int, int]:
    """Smallest and largest size of a set: a ratio of at most 1.1, or a difference of one where nothing finer exists.

    >>> size_bounds(256, 2), size_bounds(64, 3), size_bounds(7, 3), size_bounds(5, 5)
    ((123, 134), (21, 22), (2, 3), (1, 1))
    """
    fair = filters / students
    smallest = math.ceil(fair / math.sqrt(WIDEST_RATIO))
    largest = math.floor(fair * math.sqrt(WIDEST_RATIO))
    return min(smallest, math.floor(fair)), max(largest, math.ceil(fair))


def balanced(weights: NDArray[np.float64], communities: Communities, students: int) -> NDArray[np.intp]:
    """The student of each filter: split what is too large, deal out, move filters at the boundary, then improve."""
    smallest, largest = size_bounds(len(weights), students)
    pieces = _split_large(weights, communities, largest)
    student_of = _deal(pieces, len(weights), students)
    matrix = modularity_matrix(weights)
    _move_until_balanced(matrix, student_of, students, smallest, largest)
    _move_while_better(matrix, student_of, students, smallest, largest)
    _swap_while_better(matrix, student_of, students)
    return student_of


def _split_large(weights: NDArray[np.float64], communities: Communities, largest: int) -> Communities:
    pieces, open_pieces = [], list(communities)
    while open_pieces:
        piece = open_pieces.pop()
        if len(piece) <= largest:
            pieces.append(piece)
            continue
        ordered, negative = leading_order(weights, piece)
        # Newman cuts at the sign; the bound keeps either side from being a crumb, so that few cuts are needed.
        least = len(piece) - largest if len(piece) < 2 * largest else max(largest, len(piece) // 4)
        cut = min(max(negative, least), len(piece) - least)
        open_pieces += [np.sort(ordered[:cut]), np.sort(ordered[cut:])]
    return sorted(pieces, key=lambda piece: (-len(piece), int(piece[0])))


def _deal(pieces: Communities, filters: int, students: int) -> NDArray[np.intp]:
    """Largest piece first, each to the student with the fewest filters."""
    student_of = np.empty(filters, dtype=np.intp)
    sizes = np.zeros(students, dtype=np.intp)
    for piece in pieces:
        student = int(np.argmin(sizes))
        student_of[piece] = student
        sizes[student] += len(piece)
    return student_of


def _move_until_balanced(
    matrix: NDArray[np.float64], student_of: NDArray[np.intp], students: int, smallest: int, largest: int
) -> None:
    """Move the filter that costs least, from a set that is too large or into one that is too small, one at a time."""
    while True:
        sizes = np.bincount(student_of, minlength=students)
        gives, takes = sizes > largest, sizes < smallest
        if not gives.any() and not takes.any():
            return
        # A set that is too small may take from any that can spare one; one too large may give to any with room.
        givers = gives if gives.any() else sizes > smallest
        takers = takes if takes.any() else sizes < largest
        gains = move_gains(matrix, student_of, students)
        gains[~givers[student_of]] = -np.inf
        gains[:, ~takers] = -np.inf
        row, student = np.unravel_index(int(np.argmax(gains)), gains.shape)
        student_of[row] = student


def _move_while_better(
    matrix: NDArray[np.float64], student_of: NDArray[np.intp], students: int, smallest: int, largest: int
) -> None:
    while True:
        sizes = np.bincount(student_of, minlength=students)
        gains = move_gains(matrix, student_of, students)
        gains[sizes[student_of] <= smallest] = 0
        gains[:, sizes >= largest] = 0
        row, student = np.unravel_index(int(np.argmax(gains)), gains.shape)
        if gains[row, student] <= SMALLEST_GAIN:
            return
        student_of[row] = student


def _swap_while_better(matrix: NDArray[np.float64], student_of: NDArray[np.intp], students: int) -> None:
    """Kernighan-Lin's step: exchange the pair of filters that gains most, until none does."""
    if students == 1:
        return
    # Real graphs settle in far fewer; the bound is for absurd K, where every exchange is noise.
    for _ in range(len(student_of)):
        swaps = swap_gains(matrix, move_gains(matrix, student_of, students), student_of)
        first, second = np.unravel_index(int(np.argmax(swaps)), swaps.shape)
        if swaps[first, second] <= SMALLEST_GAIN:
            return
        student_of[[first, second]] = student_of[[second, first]]
