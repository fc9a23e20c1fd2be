"""The parts of the page about accuracy and cost: tiles, teacher against students, and who may be missing."""

from html import escape
from typing import Any

from trainer.fit_limits import with_unit
from trainer.report.charts import bar, percent
from trainer.report.facts import RunFacts
from trainer.report.palette import student_colour
from trainer.report.sections import card, table

PRECISION_ORDER = ("int8", "dynamic", "float16", "float32")
MOST_SUBSETS = 40  # 255 rows for K = 8 would bury the page; evaluation.json has them all


def tiles_section(facts: RunFacts) -> str:
    """The handful of numbers one wants first."""
    scores = facts.scores
    tiles: list[tuple[str, str]] = []
    if scores.students is not None:
        tiles.append((percent(scores.students), f"{facts.student_count} students together"))
    if scores.teacher is not None:
        tiles.append((percent(scores.teacher), "teacher"))
    worst = min((v for who, v in scores.subsets.items() if len(who) == facts.student_count - 1), default=None)
    if worst is not None and facts.student_count > 1:
        tiles.append((percent(worst), "worst, one student missing"))
    students = (facts.manifest or {}).get("students") or []
    teacher_parameters = facts.result("activations", "parameters")
    if students:
        largest = max(int(s["parameters"]) for s in students)
        tiles.append((with_unit("parameters", largest), "parameters on the fullest device"))
        if teacher_parameters:
            tiles.append((f"{teacher_parameters / largest:.1f}x", "fewer parameters than the teacher"))
        size = _artifact(students[0], facts.preferred_precision)
        if size:
            tiles.append((with_unit("memory", size), f"{facts.preferred_precision} file of student 0"))
    if not tiles and facts.partition is not None:
        tiles = [
            (str(len(facts.partition.student_of)), "LCONV filters"),
            (str(facts.partition.students), "students"),
            (f"{facts.partition.modularity:.3f}", "modularity"),
        ]
    said = ""
    if scores.students is not None or scores.teacher is not None:
        said = f'<p class="soft">Accuracies are those on the {escape(scores.split)}.</p>'
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>' for value, text in tiles
    )
    return f'{said}<div class="tiles">{cells}</div>' if cells else ""


def against_teacher_section(facts: RunFacts) -> str:
    """One row per network: accuracy, parameters, MACs, bytes."""
    students = (facts.manifest or {}).get("students") or []
    scores = facts.scores
    teacher = [
        f"teacher {facts.teacher_name}",
        percent(scores.teacher),
        _counted("parameters", facts.result("activations", "parameters")),
        "-",
        *["-"] * len(_precisions(students)),
    ]
    if scores.teacher is None and not students:
        return ""
    rows = [teacher]
    for student in students:
        name = f"student {student['index']} {student['network']}, {student['width']} filters"
        alone = scores.subsets.get((int(student["index"]),))
        sizes = [_counted("memory", _artifact(student, p)) for p in _precisions(students)]
        accuracy = percent(scores.students if len(students) == 1 else alone)
        rows.append(
            [name, accuracy, _counted("parameters", student["parameters"]), _counted("macs", student["macs"]), *sizes]
        )
    if len(students) > 1:
        sums = [sum(_artifact(s, p) or 0 for s in students) for p in _precisions(students)]
        rows.append(
            [
                f"all {len(students)} students and the head",
                percent(scores.students),
                _counted("parameters", sum(s["parameters"] for s in students)),
                _counted("macs", sum(s["macs"] for s in students)),
                *[_counted("memory", total) for total in sums],
            ]
        )
    if not students and scores.students is not None:
        rows.append([f"all {facts.student_count} students and the head", percent(scores.students), "-", "-"])
    heading = ["network", "accuracy", "parameters", "MACs / image", *_precisions(students)]
    drop = ""
    if scores.teacher is not None and scores.students is not None:
        drop = f" Students against teacher: {100 * (scores.students - scores.teacher):+.2f} points."
    lead = f"Accuracy on the {scores.split}; a single student's is with all others missing.{drop}"
    return card("Teacher against students", table(heading, rows, main=len(rows) - 1 if len(rows) > 1 else None), lead)


def precisions_section(facts: RunFacts) -> str:
    """What each file format costs in accuracy and bytes."""
    rows = [
        [
            row.precision + (" (default)" if row.precision == facts.preferred_precision else ""),
            percent(row.accuracy),
            ", ".join(with_unit("memory", size) for size in row.artifact_bytes),
        ]
        for row in facts.scores.precisions
    ]
    if not rows:
        return ""
    lead = f"All students, accuracy on the {facts.scores.split}, through the interpreter that the devices run."
    return card("Precisions", table(["precision", "accuracy", "bytes per device"], rows), lead)


def subsets_section(facts: RunFacts) -> str:
    """Accuracy by which students answer."""
    subsets = facts.scores.subsets
    if len(subsets) < 2:
        return ""
    ordered = sorted(subsets.items(), key=lambda item: (-len(item[0]), item[0]))
    left_out = ordered[MOST_SUBSETS:]
    rows = []
    for present, accuracy in ordered[:MOST_SUBSETS]:
        missing = [s for s in range(facts.student_count) if s not in present]
        name = "nobody" if not missing else ", ".join(f"student {s}" for s in missing)
        colour = student_colour(present[0]) if len(present) == 1 else "var(--soft)"
        rows.append(f"<span>{escape(name)}</span>{bar(accuracy, colour, percent(accuracy))}")
    body = f'<div class="bars"><span class="soft">missing</span><span></span><span></span>{"".join(rows)}</div>'
    if left_out:
        body += (
            f'<p class="note">{len(left_out)} more combinations, down to {percent(min(v for _, v in left_out))}.</p>'
        )
    if facts.scores.zeros:
        body += '<p class="note">A missing student counts as zeros here; evaluated, each subset has its own head.</p>'
    return card("Who may be missing", body, f"Accuracy on the {facts.scores.split} by the students that do not answer.")


def _precisions(students: list[dict[str, Any]]) -> list[str]:
    present = {a["precision"] for s in students for a in s.get("artifacts", []) if a.get("engine") == "tflite"}
    return [p for p in PRECISION_ORDER if p in present]


def _artifact(student: dict[str, Any], precision: str) -> int | None:
    for artifact in student.get("artifacts", []):
        if artifact.get("engine") == "tflite" and artifact.get("precision") == precision:
            return int(artifact["size_bytes"])
    return None


def _counted(kind: str, value: Any) -> str:
    return with_unit(kind, float(value)) if isinstance(value, int | float) and value else "-"
