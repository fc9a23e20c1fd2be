"""The fit check before any training: `--fit LIMITS --device BOARD`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.console.exit_codes import UserError
from trainer.device_profiles import Precision, device_profile
from trainer.fit import FitReport, check_fit
from trainer.fit_limits import parse_limits
from trainer.network_cost import student_cost
from trainer.progress import say
from trainer.run_context import RunContext
from trainer.run_directory import write_json
from trainer.stages.export_files import PREFERENCE

# What a refusal may suggest instead, beside the other precisions.
ALTERNATIVES = ("wrn-10-1", "wrn-16-1", "wrn-16-2", "wrn-22-1", "cnn-16-32-64", "cnn-8-16-16")


@dataclass(frozen=True)
class FitRequest:
    """Limits and board as typed; `None` limits ask for nothing."""

    limits: str | None
    device: str


def check_run(context: RunContext, request: FitRequest) -> dict[str, Any]:
    """Estimate every kind of student of the run; UserError for the first that does not fit. Writes fit.json."""
    if request.limits is None:
        return {}
    limits, device = parse_limits(request.limits), device_profile(request.device)
    settings, image_shape = context.run.configuration, context.dataset.image_shape
    width = -(-_filters(context) // settings.students)
    reports: dict[str, FitReport] = {}
    precision: Precision = min(settings.precisions, key=PREFERENCE.index)
    for name in dict.fromkeys(settings.student_networks()):
        others = {other: student_cost(other, image_shape, width) for other in ALTERNATIVES if other != name}
        cost = student_cost(name, image_shape, width)
        reports[name] = check_fit(name, cost, limits, device, others, precision)
    content = {name: report.to_dict() for name, report in reports.items()}
    write_json(context.run.path / "fit.json", content)
    for name, report in reports.items():
        _show(name, report)
        report.require(precision)
    say(f"fit: {', '.join(reports)} as {precision} fit {device.title} (estimated)")
    return content


def print_reports(content: dict[str, Any]) -> None:
    """The reports as JSON on stdout."""
    json.dump(content, sys.stdout, indent=1)
    print()


def _filters(context: RunContext) -> int:
    """Filters of the teacher's LCONV, known before it is trained."""
    import keras

    from trainer.networks import catalogue
    from trainer.teacher_model import find_lconv

    settings, shape = context.run.configuration, context.dataset.image_shape
    if not settings.teacher.endswith(".keras"):
        shades = (127.5,) * shape[2]
        return int(catalogue.trunk(settings.teacher, keras.Input(shape), "", shape[:2], shades, shades).shape[-1])
    path = Path(settings.teacher)
    if not path.is_file():
        raise UserError(f"teacher {path}: does not exist; expected a .keras file or a network's name")
    return int(find_lconv(keras.models.load_model(path, compile=False), settings.lconv).output.shape[-1])


def _show(name: str, report: FitReport) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = report.table()
    table = Table(*rows[0], title=f"{name} on {report.device.title} (estimated)")
    for row in rows[1:]:
        table.add_row(*row)
    Console(stderr=True).print(table)
