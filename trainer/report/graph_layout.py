"""Places for the nodes of a dense filter graph, readable at 512 nodes: students that are communities form islands."""

import math

import numpy as np
from numpy.typing import NDArray

# Enough for the islands to settle; more changes the picture no further (tried on 64-1,024 filters).
STEPS = 160
NEIGHBOURS = 6  # strongest links of a node that pull; the thousands of weak ones would draw one ball


def strongest_links(weights: NDArray[np.float64], per_node: int) -> NDArray[np.intp]:
    """Each node's `per_node` heaviest links, every link once: (links, 2), lower node first, heaviest link first.

    >>> strongest_links(np.array([[0, 3.0, 1.0], [3.0, 0, 2.0], [1.0, 2.0, 0]]), 1).tolist()
    [[0, 1], [1, 2]]
    """
    count = min(per_node, len(weights) - 1)
    if count < 1:
        return np.empty((0, 2), np.intp)
    partners = np.argpartition(-weights, count - 1, axis=1)[:, :count]
    pairs = np.stack([np.repeat(np.arange(len(weights)), count), partners.ravel()], axis=1)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    heights = weights[pairs[:, 0], pairs[:, 1]]
    pairs, heights = pairs[heights > 0], heights[heights > 0]
    return pairs[np.argsort(-heights, kind="stable")]


def node_places(weights: NDArray[np.float64], student_of: NDArray[np.intp], seed: int = 0) -> NDArray[np.float64]:
    """X and y of each node in 0..1, (filters, 2); the same arguments give the same picture.

    Fruchterman and Reingold's forces (1991), with links only where both ends rank them high, their weight divided
    by the ends' degrees so that hubs do not swallow the rest, and a pull to the student's own spot on a circle.
    """
    nodes = len(weights)
    centres = _centres(student_of)
    random = np.random.default_rng(seed)
    spread = 0.9 / math.sqrt(nodes)
    places = centres[student_of] + random.normal(scale=spread * 4, size=(nodes, 2))
    pairs, pull = _links(weights)
    for step in range(STEPS):
        heat = 0.06 * (1 - step / STEPS) ** 1.5 + 0.001
        forces = _repulsion(places, spread) + 0.6 * (centres[student_of] - places)
        stretch = (places[pairs[:, 1]] - places[pairs[:, 0]]) * pull[:, None]
        np.add.at(forces, pairs[:, 0], stretch)
        np.add.at(forces, pairs[:, 1], -stretch)
        length = np.linalg.norm(forces, axis=1, keepdims=True)
        places += forces / np.maximum(length, 1e-9) * np.minimum(length, heat)
    low, high = places.min(axis=0), places.max(axis=0)
    scaled: NDArray[np.float64] = (places - low) / max(float((high - low).max()), 1e-9)
    return scaled


def _centres(student_of: NDArray[np.intp]) -> NDArray[np.float64]:
    """One spot per student on a circle; a single student sits in the middle."""
    students = int(student_of.max()) + 1
    if students == 1:
        return np.zeros((1, 2))
    # Two lie side by side rather than one above the other: pages are wider than high.
    angles = 2 * np.pi * np.arange(students) / students + (np.pi if students == 2 else -np.pi / 2)
    return 0.75 * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _links(weights: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    roots = np.sqrt(np.maximum(weights.sum(axis=1), np.finfo(float).tiny))
    relative = weights / roots[:, None] / roots[None, :]
    pairs = strongest_links(relative, NEIGHBOURS)
    pull = relative[pairs[:, 0], pairs[:, 1]]
    return pairs, 2.0 * pull / pull.max() if len(pull) else pull


def _repulsion(places: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    """Falls with the square of the distance, so that neighbours keep apart and islands do not push each other away."""
    # sum over j of (x_i - x_j) s_ij without an array of differences.
    norms = (places**2).sum(axis=1)
    square = np.maximum(norms[:, None] + norms[None, :] - 2 * places @ places.T, (0.1 * spread) ** 2)
    strength = 1.2 * spread**3 / (square * np.sqrt(square))
    forces: NDArray[np.float64] = places * strength.sum(axis=1, keepdims=True) - strength @ places
    return forces
