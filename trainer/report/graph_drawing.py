"""The filter graph as SVG: nodes coloured by student, hubs named, only the strongest links drawn."""

from html import escape

import numpy as np
from numpy.typing import NDArray

from trainer.partition import Partition
from trainer.report.charts import percent
from trainer.report.graph_layout import node_places, strongest_links
from trainer.report.palette import student_colour

SIDE = 760
MARGIN = 34
LINKS_PER_NODE = 2  # more hide the nodes; three of the heaviest links of most nodes end in the same hubs anyway
HUBS_NAMED = 3


def graph_drawing(
    matrix: NDArray[np.float64], activity: NDArray[np.float64] | None, classes: list[str], partition: Partition
) -> tuple[str, str]:
    """The drawing, and the sentence that says what it leaves out."""
    student_of = np.array(partition.student_of, np.intp)
    places = node_places(matrix, student_of)
    span = places.max(axis=0) if len(places) > 1 else np.ones(2)
    spots = MARGIN + places * (SIDE - 2 * MARGIN)
    height = float(spots[:, 1].max() + MARGIN) if len(places) > 1 else 2 * MARGIN
    width = float(spots[:, 0].max() + MARGIN) if span[0] > 0 else 2 * MARGIN
    links = strongest_links(matrix, LINKS_PER_NODE)
    named = f"Filter graph: {len(matrix)} filters in {partition.students} partitions"
    parts = [
        f'<svg id="graph" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{named}">',
        _links(spots, student_of, links),
        _nodes(matrix, activity, classes, partition, spots),
        _names(partition, spots),
        "</svg>",
    ]
    edges = int(np.count_nonzero(np.triu(matrix, 1)))
    carried = matrix[links[:, 0], links[:, 1]].sum() / max(np.triu(matrix, 1).sum(), np.finfo(float).tiny)
    caption = (
        f"{len(links):,} of {edges:,} links are drawn: the {LINKS_PER_NODE} heaviest of every filter, which carry "
        f"{percent(carried, 1)} of all weight. The partition uses all of them. Area: weighted degree. Numbers: hubs."
    )
    return "".join(parts), caption


def _links(spots: NDArray[np.float64], student_of: NDArray[np.intp], links: NDArray[np.intp]) -> str:
    """One path per student and one for links between students, so that the page stays small."""
    paths: dict[int, list[str]] = {}
    for first, second in links:
        key = int(student_of[first]) if student_of[first] == student_of[second] else -1
        (x1, y1), (x2, y2) = spots[first], spots[second]
        paths.setdefault(key, []).append(f"M{x1:.0f} {y1:.0f}L{x2:.0f} {y2:.0f}")
    return "".join(
        f'<path class="link" data-s="{key}" d="{"".join(path)}"'
        + (f' style="stroke:{student_colour(key)}"' if key >= 0 else "")
        + "/>"
        for key, path in sorted(paths.items())
    )


def _nodes(
    matrix: NDArray[np.float64],
    activity: NDArray[np.float64] | None,
    classes: list[str],
    partition: Partition,
    spots: NDArray[np.float64],
) -> str:
    degrees = matrix.sum(axis=1)
    relative = degrees / max(float(degrees.max()), np.finfo(float).tiny)
    largest = 13.0 if len(matrix) <= 128 else 10.0
    favourite = activity.argmax(axis=0) if activity is not None and len(activity) == len(classes) else None
    nodes = []
    for student, part in enumerate(partition.filters):
        circles = []
        for f in part:
            x, y = spots[f]
            liked = f", most active for {classes[int(favourite[f])]}" if favourite is not None else ""
            title = f"filter {f}, student {student}, weighted degree {percent(relative[f], 0)} of the largest{liked}"
            radius = 2.2 + (largest - 2.2) * float(np.sqrt(relative[f]))
            circles.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{escape(title)}</title></circle>'
            )
        nodes.append(f'<g class="nodes" data-s="{student}" fill="{student_colour(student)}">{"".join(circles)}</g>')
    return "".join(nodes)


def _names(partition: Partition, spots: NDArray[np.float64]) -> str:
    """Numbers of the hubs above, below or beside their nodes, wherever no other number is; else left out."""
    names, taken = [], list[tuple[float, float]]()
    for rank in range(HUBS_NAMED):
        for student, hubs in enumerate(partition.hubs):
            if rank >= len(hubs):
                continue
            x, y = spots[hubs[rank]]
            for place in ((x, y - 12), (x, y + 24), (x + 28, y + 5), (x - 28, y + 5)):
                if all(abs(place[0] - a) > 40 or abs(place[1] - b) > 21 for a, b in taken):
                    taken.append(place)
                    spot = f'x="{place[0]:.0f}" y="{place[1]:.0f}"'
                    names.append(f'<text class="hub" data-s="{student}" {spot}>{hubs[rank]}</text>')
                    break
    return "".join(names)
