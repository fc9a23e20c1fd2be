"""The parts of the page about the partition, the trainings and where the run came from."""

from html import escape
from typing import Any

import numpy as np

from trainer.report.charts import Line, bar, line_chart, percent
from trainer.report.facts import RunFacts
from trainer.report.graph_drawing import graph_drawing
from trainer.report.palette import student_colour
from trainer.report.pictures import liked_images, matrix_picture

FAVOURITE_CLASSES = 3
MOST_CLASSES = 20  # rows of the table of classes; beyond that the most telling ones
CURVE_COLOURS = ("#3b82d8", "#e0791a", "#15a37f", "#c9489c", "#8b6ad6", "#b08b00", "#d6504a", "#5c9a2f")


def card(title: str, body: str, lead: str = "") -> str:
    """A titled box; nothing at all for an empty body."""
    opening = f'<p class="soft">{escape(lead)}</p>' if lead else ""
    return f'<section class="card"><h2>{escape(title)}</h2>{opening}{body}</section>' if body else ""


def table(heading: list[str], rows: list[list[str]], kind: str = "", main: int | None = None) -> str:
    """A table of escaped text; `main` is the row to stress."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    body = "".join(
        f"<tr{' class=main' if number == main else ''}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for number, row in enumerate(rows)
    )
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def gaps_section(facts: RunFacts) -> str:
    """What is missing and how to make it."""
    if not facts.gaps:
        return ""
    items = "".join(f"<li>{escape(gap)}</li>" for gap in facts.gaps)
    return f'<section class="card gaps"><h2>Not in this report yet</h2><ul>{items}</ul></section>'


def partition_section(facts: RunFacts) -> str:
    """One box per student: size, activity, hubs, the classes it is for."""
    partition = facts.partition
    if partition is None:
        return ""
    found = ""
    if partition.resolution:
        many = "1 community" if partition.communities == 1 else f"{partition.communities} communities"
        found = f"Best start: {many} of Louvain's at resolution {partition.resolution:g}. "
    lead = (
        f"Method {partition.method}, seed {partition.seed}. {found}Balanced: modularity {partition.modularity:.4f}, "
        f"smallest / largest {percent(partition.balance, 0)}. {partition.note}"
    )
    largest = max(partition.sizes)
    boxes = []
    for student, part in enumerate(partition.filters):
        colour = student_colour(student)
        hubs = ", ".join(
            f"{f} ({percent(d, 0)})"
            for f, d in zip(partition.hubs[student], partition.hub_degrees[student], strict=True)
        )
        rows = [("hubs", escape(hubs))]
        favourites = _favourite_classes(facts, student)
        if favourites:
            rows.append(("leans to", escape(favourites)))
        share = ""
        if partition.activity_share:
            value = partition.activity_share[student]
            share = f"<span>activity</span>{bar(value, colour, percent(value, 1))}"
        boxes.append(
            f'<div class="student" style="--own:{colour}"><h3>Student {student}</h3><div class="bars">'
            f"<span>filters</span>{bar(len(part) / largest, colour, str(len(part)))}{share}</div>"
            f"<dl>{''.join(f'<dt>{a}</dt><dd>{b}</dd>' for a, b in rows)}</dl></div>"
        )
    return card("Partition: which student learns what", f'<div class="cards">{"".join(boxes)}</div>', lead)


def class_names(facts: RunFacts) -> list[str]:
    """From the deployment or the data set, else numbers."""
    if facts.activity is None:
        return []
    count = len(facts.activity)
    return list(facts.classes) if len(facts.classes) == count else [f"class {i}" for i in range(count)]


def _lift(facts: RunFacts) -> Any:
    """Share of a class's activity in a partition over the partition's share of all: (classes, students)."""
    if facts.partition is None or facts.activity is None:
        return None
    sums = np.stack([facts.activity[:, list(part)].sum(axis=1) for part in facts.partition.filters], axis=1)
    if sums.sum() == 0:
        return None
    tiny = np.finfo(float).tiny
    own = sums / np.maximum(sums.sum(axis=1, keepdims=True), tiny)
    return own / np.maximum(sums.sum(axis=0) / sums.sum(), tiny)


def _favourite_classes(facts: RunFacts, student: int) -> str:
    lift = _lift(facts)
    if lift is None:
        return ""
    names = class_names(facts)
    order = np.argsort(-lift[:, student], kind="stable")[:FAVOURITE_CLASSES]
    return ", ".join(f"{names[c]} ({lift[c, student]:.2f}x)" for c in order if lift[c, student] > 1)


def classes_section(facts: RunFacts) -> str:
    """Class by student: how much more of a class's activity than usual falls into each partition."""
    lift = _lift(facts)
    if lift is None or facts.partition is None or facts.partition.students < 2:
        return ""
    names = class_names(facts)
    telling = np.argsort(-np.abs(np.log(np.maximum(lift, 1e-6))).max(axis=1), kind="stable")[:MOST_CLASSES]
    rows = []
    for c in sorted(telling.tolist()):
        cells = []
        for student in range(facts.partition.students):
            strength = min(70.0, max(0.0, (lift[c, student] - 1) * 160))
            tint = f"color-mix(in srgb,{student_colour(student)} {strength:.0f}%,transparent)"
            cells.append(f'<td style="background:{tint}">{lift[c, student]:.2f}x</td>')
        rows.append(f"<tr><td>{escape(names[c])}</td>{''.join(cells)}</tr>")
    head = "".join(f"<th>student {s}</th>" for s in range(facts.partition.students))
    dropped = f" The {MOST_CLASSES} most telling of {len(names)} classes." if len(names) > MOST_CLASSES else ""
    lead = "Activity of a class in a student's filters, against what the student has of all activity." + dropped
    opening = f'<div class="scroll"><table class="heat"><thead><tr><th>class</th>{head}</tr></thead>'
    body = f"{opening}<tbody>{''.join(rows)}</tbody></table></div>"
    return card("Classes and students", body, lead)


def graph_section(facts: RunFacts) -> str:
    """Filter graph and F matrix side by side."""
    if facts.partition is None or facts.matrix is None:
        return ""
    drawing, caption = graph_drawing(facts.matrix, facts.activity, class_names(facts), facts.partition)
    keys = "".join(
        f'<button class="key" type="button" aria-pressed="false" data-s="{s}">'
        f'<i style="background:{student_colour(s)}"></i>student {s}</button>'
        for s in range(facts.partition.students)
    )
    graph = (
        f'<div class="legend">{keys}</div>{drawing}<p class="reading" id="told" aria-live="polite">'
        f'Point at a filter.</p><p class="note">{escape(caption)}</p>'
    )
    strip = "".join(
        f'<i style="flex:{len(part)};background:{student_colour(s)}"></i>'
        for s, part in enumerate(facts.partition.filters)
    )
    picture = matrix_picture(facts.matrix, facts.partition)
    matrix = (
        f'<div class="strip" aria-hidden="true">{strip}</div><img class="matrix" src="{picture}" '
        f'alt="F matrix, {len(facts.matrix)} filters ordered by student">'
        '<p class="note">F_ij = sum of a_i a_j |a_i - a_j| over the validation images. Rows and columns by student, '
        "hubs first; coloured inside a student, grey between students; darker is heavier (square root).</p>"
    )
    return f'<div class="two">{card("Filter graph", graph)}{card("F matrix by partition", matrix)}</div>'


def curves_section(facts: RunFacts) -> str:
    """Training curves of teacher and students."""
    charts = []
    for stage, title in (("distill", "Students"), ("teacher", "Teacher")):
        history = facts.histories.get(stage)
        if history:
            charts += _charts(title, history)
    return card("Training curves", f'<div class="charts">{"".join(charts)}</div>' if charts else "")


def _charts(title: str, history: list[dict[str, float]]) -> list[str]:
    passes = [float(entry.get("pass", number + 1)) for number, entry in enumerate(history)]
    names = list(dict.fromkeys(key for entry in history for key in entry if key not in ("pass", "seconds")))
    shares = [name for name in names if "accuracy" in name]
    others = [name for name in names if name not in shares]
    result = []
    for group, kind, is_share in ((shares, "accuracy on the validation split", True), (others, "losses", False)):
        lines = [
            Line(_spoken(name, title), CURVE_COLOURS[i % len(CURVE_COLOURS)], [entry.get(name) for entry in history])
            for i, name in enumerate(group)
        ]
        if lines:
            result.append(line_chart(f"{title}: {kind}", lines, passes, is_share))
    return result


def _spoken(name: str, title: str) -> str:
    """A history's key in words.

    >>> [_spoken(name, "Students") for name in ("val_accuracy", "val_accuracy_without_1", "label_loss")]
    ['all students', 'without student 1', 'label loss']
    """
    if name == "val_accuracy":
        return "all students" if title == "Students" else title.lower()
    if name.startswith("val_accuracy_without_"):
        return f"without student {name.rsplit('_', 1)[1]}"
    return name.replace("_", " ")


def liked_section(facts: RunFacts) -> str:
    """Validation images that fall to each partition most."""
    groups, reason = liked_images(facts)
    if not groups:
        if facts.partition is not None:
            facts.gaps.append(f"No pictures of images that partitions like: {reason}")
        return ""
    parts = []
    for student, images in enumerate(groups):
        figures = "".join(
            f'<figure><img src="{liked.uri}" alt="{escape(liked.label, quote=True)}" loading="lazy" '
            f'title="{escape(liked.label, quote=True)}: {percent(liked.share, 0)} of its activity">'
            f"<figcaption>{escape(liked.label)}<br>{percent(liked.share, 0)}</figcaption></figure>"
            for liked in images
        )
        parts.append(
            f'<h3><span class="key"><i style="background:{student_colour(student)}"></i>Student {student}</span></h3>'
            f'<div class="liked">{figures}</div>'
        )
    lead = "Validation images with the largest share of activity in the student's filters; a class at most a third."
    return card("Images each partition likes most", "".join(parts), lead)


def origin_section(facts: RunFacts) -> str:
    """Settings, versions, machine, time per stage."""
    settings = [[key, str(value)] for key, value in facts.configuration.items()]
    versions = [[key, str(value)] for key, value in facts.run.get("versions", {}).items()]
    origin = [[key, str(facts.run.get(key))] for key in ("created", "commit", "machine") if facts.run.get(key)]
    times = [
        [stage, str(content.get("finished", ""))[:16].replace("T", " "), f"{float(content.get('seconds', 0)):,.1f} s"]
        for stage, content in facts.stages.items()
    ]
    body = table(["stage", "finished (UTC)", "took"], times) if times else ""
    names = table(["name", "value"], origin + versions + settings, "settings")
    body += f"<details><summary>Settings and versions</summary>{names}</details>"
    return card("How this run was made", body)
