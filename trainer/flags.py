"""Flags of nonn-trainer: one per setting of a run."""

import argparse
from typing import Any

from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.configuration import RunConfiguration
from trainer.recipes import recipe_names, recipe_settings

TUPLES_OF_TEXT = ("student", "precisions", "tvm")
SHORT_HELP = {
    "dataset": "PATH|cifar10|digits",
    "teacher": "NAME|FILE.keras",
    "lconv": "LAYER",
    "student": "NAME[,NAME...]",
    "students": "K",
    "image_size": "H,W",
    "partition": "communities|random|contiguous",
    "teacher_engine": "auto|keras|tflite",
    "precisions": "P[,P...]",
    "tvm": "CPU[,CPU...]",
    "feature_encoding": "auto|float32|int8|int4",
}


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` a flag for every setting; a flag that is not given leaves the run's own setting."""
    names = ", ".join(recipe_names())
    parser.add_argument(
        "--recipe", metavar="NAME|FILE", help=f"settings of an experiment, flags win: {names}, or a TOML file"
    )
    group = parser.add_argument_group("settings", "fixed when a run is made; later commands read RUN/run.json")
    for name, field in RunConfiguration.model_fields.items():
        text = field.description or name.replace("_", " ")
        if not field.is_required() and field.default is not None:
            shown = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
            text += f" [{shown}]"
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"setting_{name}",
            metavar=SHORT_HELP.get(name, name.rsplit("_", 1)[-1].upper()),
            help=text.replace("%", "%%"),
        )


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings on the command line, by name; pydantic turns their text into numbers."""
    recipe = getattr(arguments, "recipe", None)
    given: dict[str, Any] = recipe_settings(recipe) if recipe else {}
    for name in RunConfiguration.model_fields:
        text = getattr(arguments, f"setting_{name}", None)
        if text is None:
            continue
        if name in TUPLES_OF_TEXT:
            given[name] = tuple(part.strip() for part in text.split(","))
        elif name == "image_size":
            given[name] = _size(text)
        else:
            given[name] = text
    return given


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.lower().replace("x", ",").split(","))
    except ValueError:
        raise UserError(f"--image-size {text}: expected HEIGHT,WIDTH, such as 64,64", ExitCode.USAGE) from None
    return height, width
