"""Experiments as files: paper, settings, cost and measured result. `nonn-trainer run --recipe NAME`."""

import tomllib
from pathlib import Path
from typing import Any

from edge_agent.console.exit_codes import ExitCode, UserError

FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """Recipes that come with the trainer."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def recipe_settings(name: str) -> dict[str, Any]:
    """Settings of a recipe of ours, or of a TOML file with a table [settings]; UserError if there is none."""
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        path = Path(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        known = ", ".join(recipe_names())
        raise UserError(
            f"recipe {name!r}: no such file; expected {known}, or a TOML file", ExitCode.CONFIGURATION
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}", ExitCode.CONFIGURATION) from None
    settings = content.get("settings")
    if not isinstance(settings, dict):
        raise UserError(f"{path}: no table [settings]; expected a recipe", ExitCode.CONFIGURATION)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
