"""The paper's filter activation network: from LCONV activities to a weighted graph of filters."""

import io
import zipfile
from pathlib import Path

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.exit_codes import UserError

# A strip of activities and its scratch stay in a core's second-level cache: 1,024 filters x 10,000 images take 4.7-5 s
# with 0.5-1 MB, 7 s with 0.25 MB, 30 s with 4 MB.
STRIP_BYTES = 512 * 1024
# Skipping the images in which a filter is silent costs a copy: with half of them silent it doubles the time, with 95 %
# it halves it.
SPARSE_BELOW = 0.25


def normalise_activations(activations: NDArray[np.floating], top_k: int | None = None) -> NDArray[np.float32]:
    """Clip at 0, keep each image's `top_k` most active filters, divide by the image's own maximum.

    activations: (images, filters), any range; answer: (images, filters), float32, 0..1. An image in which no filter
    is active stays zero. Filters that tie with the k-th are all kept.

    >>> normalise_activations(np.array([[4.0, 2.0, -1.0, 1.0], [0.0, 0.0, 0.0, -3.0]]), top_k=2).tolist()
    [[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    clipped = np.maximum(_checked_activations(activations), np.float32(0))
    filters = clipped.shape[1]
    if top_k is not None:
        if top_k < 1:
            raise UserError(f"top_k is {top_k}; expected at least 1, or none to keep every filter")
        if top_k < filters:
            kth = np.partition(clipped, filters - top_k, axis=1)[:, filters - top_k, None]
            clipped[clipped < kth] = 0
    maximum = clipped.max(axis=1, keepdims=True)
    shares = np.zeros_like(clipped)
    np.divide(clipped, maximum, out=shares, where=maximum > 0)
    return shares


def filter_activation_matrix(activations: NDArray[np.floating]) -> NDArray[np.float64]:
    """F_ij = sum over images of a_i a_j |a_i - a_j| (paper, section 3; method.md 3).

    activations: (images, filters), non-negative; answer: (filters, filters), float64, symmetric, zero diagonal.
    Memory beyond input and answer is one transposed float32 copy and two strips of STRIP_BYTES. Products are float32,
    sums over a strip float32, sums over strips float64.

    >>> filter_activation_matrix(np.array([[1.0, 0.5, 0.0], [0.5, 0.5, 1.0]])).tolist()
    [[0.0, 0.25, 0.25], [0.25, 0.0, 0.25], [0.25, 0.25, 0.0]]
    """
    checked = _checked_activations(activations)
    if checked.size and checked.min() < 0:
        raise UserError(
            f"activations reach {checked.min():g}; expected none below 0 (normalise_activations clips them)"
        )
    by_filter = np.ascontiguousarray(checked.T)
    filters, images = by_filter.shape
    upper = np.zeros((filters, filters), np.float64)
    strip = max(64, STRIP_BYTES // (4 * filters))
    for start in range(0, images, strip):
        _add_strip(upper, np.ascontiguousarray(by_filter[:, start : start + strip]))
    return upper + upper.T


def _add_strip(upper: NDArray[np.float64], strip: NDArray[np.float32]) -> None:
    """Add one strip of images, (filters, images), to the part of F above its diagonal."""
    filters = len(strip)
    active = strip > 0
    scratch = np.empty_like(strip)
    for i in range(filters - 1):
        own, others = strip[i], strip[i + 1 :]
        seen = np.flatnonzero(active[i])
        if seen.size == 0:
            continue
        if seen.size < SPARSE_BELOW * own.size:
            own, others = own[seen], others[:, seen]
        difference = scratch.reshape(-1)[: others.size].reshape(others.shape)
        np.subtract(others, own, out=difference)
        np.abs(difference, out=difference)
        np.multiply(difference, others, out=difference)
        upper[i, i + 1 :] += difference @ own


def class_activity(activations: NDArray[np.floating], labels: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    """Mean activity of each filter over the images of each class: (classes, filters); a class without images is zero.

    activations: (images, filters); labels: (images,), 0..classes-1.

    >>> class_activity(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([0, 0, 1]), 2).tolist()
    [[0.5, 0.5], [1.0, 1.0]]
    """
    checked = _checked_activations(activations)
    if labels.shape != (len(checked),) or (labels.size and not 0 <= labels.min() <= labels.max() < classes):
        raise UserError(
            f"labels of shape {labels.shape}; expected one of 0..{classes - 1} for each of {len(checked)} images"
        )
    membership = (labels[:, None] == np.arange(classes)).astype(np.float64)
    counts = membership.sum(axis=0)[:, None]
    means: NDArray[np.float64] = (membership.T @ checked.astype(np.float64)) / np.maximum(counts, 1)
    return means


def check_matrix(matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """The same F as float64 with a zero diagonal; UserError unless square, symmetric, finite and non-negative."""
    weights = np.array(matrix, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or weights.shape[0] == 0:
        raise UserError(f"filter matrix has shape {weights.shape}; expected (filters, filters)")
    if not np.isfinite(weights).all():
        bad = int(np.flatnonzero(~np.isfinite(weights).all(axis=1))[0])
        raise UserError(f"filter matrix has NaN or infinity in row {bad}; expected finite weights")
    if weights.min() < 0:
        raise UserError(f"filter matrix has the negative weight {weights.min():g}; expected none below 0")
    if not np.allclose(weights, weights.T, rtol=1e-6, atol=0):
        raise UserError("filter matrix is not symmetric; expected F_ij = F_ji")
    np.fill_diagonal(weights, 0)
    return weights


def filter_graph(matrix: NDArray[np.floating]) -> "nx.Graph[int]":
    """Nodes 0..filters-1, an edge with `weight` F_ij wherever it is above 0.

    >>> filter_graph(np.array([[0, 2.0, 0], [2.0, 0, 0], [0, 0, 0]])).edges(data="weight")
    EdgeDataView([(0, 1, 2.0)])
    """
    weights = check_matrix(matrix)
    rows, columns = np.nonzero(np.triu(weights, 1))
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(len(weights)))
    graph.add_weighted_edges_from(zip(rows.tolist(), columns.tolist(), weights[rows, columns].tolist(), strict=True))
    return graph


def strongest_edges(
    matrix: NDArray[np.floating], per_filter: int = 3, most: int = 2048
) -> list[tuple[int, int, float]]:
    """Each filter's strongest edges, strongest first, at most `most`: (filter, filter, F_ij / largest F).

    >>> strongest_edges(np.array([[0, 4.0, 1.0], [4.0, 0, 2.0], [1.0, 2.0, 0]]), per_filter=1)
    [(0, 1, 1.0), (1, 2, 0.5)]
    """
    weights = check_matrix(matrix)
    largest = weights.max()
    if largest == 0:
        return []
    ends = np.argsort(-weights, axis=1, kind="stable")[:, : min(per_filter, len(weights) - 1)]
    pairs = {(min(i, j), max(i, j)) for i, row in enumerate(ends.tolist()) for j in row if weights[i, j] > 0}
    edges = [(i, j, float(weights[i, j] / largest)) for i, j in pairs]
    return sorted(edges, key=lambda edge: (-edge[2], edge[:2]))[:most]


def save_filter_graph(path: Path, matrix: NDArray[np.floating], activity: NDArray[np.floating]) -> None:
    """Write F and the class-wise activity table `(classes, filters)` as one npz, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, matrix=check_matrix(matrix), activity=np.asarray(activity, np.float64))
    write_atomically(path, buffer.getvalue())


def load_filter_graph(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F and the class-wise activity table from `save_filter_graph`; UserError for anything else."""
    try:
        # From bytes: numpy leaves a file open when it is not a zip after all.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            matrix, activity = check_matrix(arrays["matrix"]), arrays["activity"].astype(np.float64)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected the filter graph that the partition stage writes") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a filter graph ({error}); expected an npz with matrix and activity") from None
    if activity.ndim != 2 or activity.shape[1] != len(matrix):
        raise UserError(f"{path}: activity has shape {activity.shape}; expected (classes, {len(matrix)})")
    return matrix, activity


def _checked_activations(activations: NDArray[np.floating]) -> NDArray[np.float32]:
    array = np.asarray(activations, dtype=np.float32)
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"activations have shape {array.shape}; expected (images, filters), at least one of each")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise UserError(f"activations of image {bad} have NaN or infinity; expected finite values")
    return array
