"""F and partition times, against a plain triple loop and against igraph's Leiden.

    python benchmarks/filter_graph.py [--images 10000] [--filters 64,128,256,512,1024] [--graph RUN/partition/graph.npz]

Times are CPU seconds of one thread, so that other work on the machine hardly counts.
Activities are synthetic, seeded, dense after ReLU (about nine in ten are above 0, as in a WRN-40-4 on CIFAR-10), unless
--graph brings a real F. Needs `pip install igraph leidenalg` for its last columns and says so where they are missing.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: a spinning second thread would count as work

import argparse
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from trainer.filter_graph import filter_activation_matrix, load_filter_graph, normalise_activations
from trainer.partition import partition_filters
from trainer.partition.balance import balanced
from trainer.partition.communities import Communities, communities_by_resolution, in_order
from trainer.partition.modularity import modularity, modularity_matrix

# The loop does 1-3 million products a second: this many take a few seconds.
LOOP_PRODUCTS = 4_000_000
STUDENTS = 4


def synthetic_activations(filters: int, images: int, seed: int = 0) -> NDArray[np.float32]:
    """Normalised activities of filters that prefer some of ten classes: (images, filters), 0..1."""
    random = np.random.default_rng(seed)
    preference = random.gamma(0.5, size=(10, filters))
    raw = preference[random.integers(0, 10, images)] * random.gamma(2, 0.5, size=(images, filters)) - 0.02
    return normalise_activations(raw)


def plain_loop(activations: NDArray[np.float32], pairs: int) -> float:
    """Seconds for `pairs` filter pairs by three nested Python loops over plain lists, the formula as it stands."""
    columns = activations.T.astype(float).tolist()
    count = len(columns)
    started = time.process_time()
    done = 0
    for i in range(count):
        for j in range(i + 1, count):
            total = 0.0
            for a, b in zip(columns[i], columns[j], strict=True):
                total += a * b * abs(a - b)
            done += 1
            if done == pairs:
                return time.process_time() - started
    return time.process_time() - started


def timed(job: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and answer."""
    started = time.process_time()
    answer = job()
    return time.process_time() - started, answer


def matrix_row(filters: int, images: int) -> tuple[list[str], NDArray[np.float64]]:
    """Time of F, and of the loop scaled up from as many pairs as a few seconds allow."""
    activations = synthetic_activations(filters, images)
    seconds, matrix = timed(lambda: filter_activation_matrix(activations))
    all_pairs = filters * (filters - 1) // 2
    pairs = min(all_pairs, max(1, LOOP_PRODUCTS // images))
    loop = plain_loop(activations, pairs) * all_pairs / pairs
    mark = "" if pairs == all_pairs else f" (from {pairs:,} of {all_pairs:,} pairs)"
    return [str(filters), f"{seconds:.2f}", f"{loop:,.0f}{mark}", f"{loop / seconds:,.0f}x"], matrix


def leiden_by_resolution(weights: NDArray[np.float64], resolutions: list[float]) -> list[Communities] | None:
    """Leiden's communities with the same objective (modularity with a resolution); None without the packages."""
    try:
        import igraph
        import leidenalg
    except ImportError:
        return None
    rows, columns = np.nonzero(np.triu(weights, 1))
    graph = igraph.Graph(n=len(weights), edges=np.stack([rows, columns], axis=1).tolist())
    heights = weights[rows, columns].tolist()
    found = [
        leidenalg.find_partition(
            graph, leidenalg.RBConfigurationVertexPartition, weights=heights, resolution_parameter=r, seed=0
        )
        for r in resolutions
    ]
    return [in_order([set(community) for community in partition]) for partition in found]


def best_modularity(weights: NDArray[np.float64], q: NDArray[np.float64], sweep: list[Communities]) -> float:
    """Modularity of the best of the balanced sets, as `partition_filters` chooses them."""
    return max(modularity(q, balanced(weights, found, STUDENTS), STUDENTS) for found in sweep)


def partition_row(matrix: NDArray[np.float64], name: str) -> list[str]:
    """Times of the sweep and of balancing; modularity of the balanced sets, ours, Leiden's and the controls'."""
    weights = matrix / matrix.max()
    q = modularity_matrix(weights)
    louvain_s, sweep = timed(lambda: list(communities_by_resolution(weights, 0)))
    balancing_s, ours = timed(lambda: best_modularity(weights, q, [found for _, found in sweep]))
    leiden_s, leiden = timed(lambda: leiden_by_resolution(weights, [r for r, _ in sweep]))
    if leiden is None:
        leiden_columns = ["igraph and leidenalg are not installed", "-"]
    else:
        leiden_columns = [f"{leiden_s:.2f}", f"{best_modularity(weights, q, leiden):.4f}"]
    controls = [partition_filters(matrix, STUDENTS, method).modularity for method in ("random", "contiguous")]
    return [
        name,
        f"{louvain_s:.2f}",
        f"{balancing_s:.2f}",
        leiden_columns[0],
        f"{ours:.4f}",
        leiden_columns[1],
        *(f"{control:.4f}" for control in controls),
    ]


def print_table(heading: list[str], rows: Iterable[list[str]]) -> None:
    """Markdown, so that it can go into docs as it is; each row as soon as it is measured."""
    print("| " + " | ".join(heading) + " |")
    print("|" + "---|" * len(heading), flush=True)
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--filters", default="64,128,256,512,1024")
    parser.add_argument("--graph", type=Path, help="a run's partition/graph.npz, partitioned as well")
    arguments = parser.parse_args()
    load = f"load {os.getloadavg()[0]:.1f}"
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, networkx {nx.__version__}"
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {load}, {versions}; CPU seconds of one thread, one run each\n"
    )
    matrices: list[tuple[str, NDArray[np.float64]]] = []
    rows = []
    for filters in map(int, arguments.filters.split(",")):
        row, matrix = matrix_row(filters, arguments.images)
        rows.append(row)
        matrices.append((str(filters), matrix))
    print(f"F of {arguments.images:,} images:\n")
    print_table(["filters", "F, s", "plain loop, s", "faster"], rows)
    if arguments.graph:
        real = load_filter_graph(arguments.graph)[0]
        matrices.append((f"{len(real)} (given)", real))
    print(f"\nPartition for {STUDENTS} students, six resolutions:\n")
    heading = ["filters", "Louvain, s", "balancing, s", "Leiden, s", "Q", "Q from Leiden", "Q random", "Q contiguous"]
    print_table(heading, (partition_row(matrix, name) for name, matrix in matrices))


if __name__ == "__main__":
    main()
