"""Seeded Louvain communities of the filter graph over a sweep of resolutions."""

from collections.abc import Iterator

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from trainer.filter_graph import filter_graph

# On dense filter graphs 0.7 gives 2 communities, 1.0 about 4, 1.2 about 7; above 1.4 single filters are shed.
RESOLUTIONS = (0.7, 0.85, 1.0, 1.1, 1.2, 1.3)

Communities = list[NDArray[np.intp]]


def communities_by_resolution(
    weights: NDArray[np.float64], seed: int, resolutions: tuple[float, ...] = RESOLUTIONS
) -> Iterator[tuple[float, Communities]]:
    """One Louvain answer per resolution; communities are sorted arrays of filters, largest first.

    Weights are scaled to a largest one of 1, which changes no community and keeps networkx's gain threshold meaningful.
    """
    graph = filter_graph(weights / weights.max())
    for resolution in resolutions:
        yield resolution, in_order(nx.community.louvain_communities(graph, resolution=resolution, seed=seed))


def in_order(communities: list[set[int]]) -> Communities:
    """Largest first, then by lowest filter, so that equal answers look equal.

    >>> [c.tolist() for c in in_order([{3}, {2, 0}, {1, 4}])]
    [[0, 2], [1, 4], [3]]
    """
    arrays = [np.array(sorted(community), dtype=np.intp) for community in communities]
    return sorted(arrays, key=lambda community: (-len(community), int(community[0])))


def as_labels(communities: Communities, filters: int) -> NDArray[np.intp]:
    """The community of each filter."""
    labels = np.empty(filters, dtype=np.intp)
    for label, community in enumerate(communities):
        labels[community] = label
    return labels
