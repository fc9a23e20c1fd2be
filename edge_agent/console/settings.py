"""Settings from a TOML file, NONN_* variables and flags, checked by pydantic; flags win, then variables."""

import argparse
import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from edge_agent.console.exit_codes import ExitCode, UserError

Settings = TypeVar("Settings", bound=BaseModel)
FieldPath = tuple[str, ...]
_TABLE = re.compile(r"\s*\[\s*([A-Za-z0-9_.\- ]+)\]\s*(#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# pydantic's words for these name Python's types.
_EXPECTATIONS = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "bool_type": "true or false",
    "bool_parsing": "true or false", "string_type": "text", "string_too_short": "text", "path_type": "a path",
    "tuple_type": "a list", "model_type": "a table",
}  # fmt: skip


def add_setting_flags(parser: argparse.ArgumentParser, kind: type[BaseModel]) -> None:
    """Give `parser` --config and one flag per setting: broker.host becomes --broker-host."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with any of the settings below")
    group = parser.add_argument_group("settings", "each also as NONN_NAME in the environment, or in the TOML file")
    for path, field in _leaves(kind):
        default = "" if field.default in (None, PydanticUndefined) else f" [{_shown(field.default)}]"
        text = f"{field.description or ''}{default}".replace("%", "%%")
        if switch := _switch(field):
            # Given bare it means yes; the long form takes a value like any other flag.
            group.add_argument(switch, dest=_destination(path), action="store_const", const="true", help=text)
            text = f"the same, with true or false{default}"
        group.add_argument(_flag(path), dest=_destination(path), metavar=path[-1].upper(), help=text)


def load_settings(kind: type[Settings], arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Read, layer and check; UserError (exit code 78) names file and line, variable or flag, and what was expected."""
    text, tree = _read_toml(arguments.config)
    origins: dict[FieldPath, str] = {}
    for path, field in _leaves(kind):
        variable = "NONN_" + "_".join(path).upper()
        flag_value = getattr(arguments, _destination(path), None)
        value = flag_value if flag_value is not None else environ.get(variable)
        if value is not None:
            origins[path] = _flag(path) if flag_value is not None else f"environment {variable}"
            _put(tree, path, value.split(",") if _is_collection(field) else value)

    def refusal(path: FieldPath, expectation: str) -> UserError:
        return UserError(_place(path, origins, text, arguments.config) + expectation, ExitCode.CONFIGURATION)

    for path, field in _leaves(kind):
        if (expected := _what_pydantic_overlooks(field, _get(tree, path))) is not None:
            raise refusal(path, expected)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # What stands there wrongly before what is missing: a misspelt key is both.
        first = next((problem for problem in problems if problem["type"] != "missing"), problems[0])
        path = _setting_of(kind, tuple(str(part) for part in first["loc"]))
        raise refusal(path, _expectation(kind, first, path)) from None


def setting_names(kind: type[BaseModel]) -> list[str]:
    """All settings, as they are called in messages and TOML files: broker.host."""
    return [".".join(path) for path, _ in _leaves(kind)]


def _read_toml(path: Path | None) -> tuple[str, dict[str, Any]]:
    if path is None:
        return "", {}
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a TOML file", ExitCode.CONFIGURATION) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; expected a TOML file", ExitCode.CONFIGURATION) from None
    except RecursionError:
        raise UserError(f"{path}: too many brackets within brackets", ExitCode.CONFIGURATION) from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = found[1] if found else max(1, len(text.splitlines()))  # else it is about the end of the document
        raise UserError(f"{path}:{line}: not valid TOML: {error}", ExitCode.CONFIGURATION) from None


def _what_pydantic_overlooks(field: FieldInfo, value: Any) -> str | None:
    """It takes '' for the path '.', true for the number 1, and a name of two lines."""
    kinds = set(_kinds(field.annotation))
    parts = value if isinstance(value, list) else [value]
    if value == "" and Path in kinds:
        return "expected a path"
    if kinds & {int, float} and any(isinstance(part, bool) for part in parts):
        return "expected a number, not true or false"
    if SecretStr not in kinds and any(isinstance(part, str) and _CONTROL.search(part) for part in parts):
        return "expected text without control characters"
    return None


def _setting_of(kind: type[BaseModel], location: FieldPath) -> FieldPath:
    """The setting that an error is about, without pydantic's names for parts of it."""
    return next((path for path, _ in _leaves(kind) if location[: len(path)] == path), location)


def _place(path: FieldPath, origins: Mapping[FieldPath, str], text: str, config: Path | None) -> str:
    """Name the flag, variable or line, and the setting."""
    origin = next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), None)
    if origin is not None:
        return f"{origin}: "  # flags and variables bear the setting's name
    place = f"{config}:{line_of(text, path)}: " if config is not None and path else ""
    return f"{place}{'.'.join(path) + ': ' if path else ''}"


def _expectation(kind: type[BaseModel], error: ErrorDetails, path: FieldPath) -> str:
    name = ".".join(path)
    if error["type"] == "missing":
        return f"expected {_flag(path)}, NONN_{'_'.join(path).upper()} or {name} in the TOML file"
    if error["type"] == "extra_forbidden":
        known = [".".join(leaf) for leaf, _ in _leaves(kind)]
        close = difflib.get_close_matches(name, known, 1) or difflib.get_close_matches(path[-1], known, 1)
        return f"no such setting; expected {close[0] if close else 'one that --help lists'}"
    if error["type"] in _EXPECTATIONS:
        message = f"expected {_EXPECTATIONS[error['type']]}"
    else:
        message = error["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be ", "expected ").replace("String should match", "expected text of")
    secret = any(leaf == path and SecretStr in _kinds(field.annotation) for leaf, field in _leaves(kind))
    given = repr(error["input"])
    if secret or given in message or not isinstance(error["input"], str | int | float):
        return message
    return f"{message} (got {given})"


def line_of(text: str, path: FieldPath) -> int:
    r"""Line (from 1) where the TOML text sets `path`; the table's line, or 1, where the key does not stand.

    >>> line_of("[broker]\nport = 1", ("broker", "port"))
    2
    """
    table: FieldPath = ()
    best = 1
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = tuple(part.strip() for part in header[1].split("."))
            if path[: len(table)] == table:
                best = number
        elif key := _KEY.match(line):
            whole = (*table, *(part.strip() for part in key[1].split(".")))
            if path[: len(whole)] == whole:
                return number
    return best


def _leaves(kind: type[BaseModel], prefix: FieldPath = ()) -> Iterator[tuple[FieldPath, FieldInfo]]:
    for name, field in kind.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from _leaves(nested, (*prefix, name))
        else:
            yield (*prefix, name), field


def _switch(field: FieldInfo) -> Any:
    """The short flag of a setting that is mostly given bare."""
    return field.json_schema_extra.get("switch") if isinstance(field.json_schema_extra, dict) else None


def _kinds(annotation: Any) -> Iterator[Any]:
    """A setting's type and all that it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def _is_collection(field: FieldInfo) -> bool:
    return any(get_origin(kind) in (tuple, list, frozenset) for kind in _kinds(field.annotation))


def _put(tree: dict[str, Any], path: FieldPath, value: Any) -> None:
    for part in path[:-1]:
        child = tree.setdefault(part, {})
        tree = child if isinstance(child, dict) else {}
    tree[path[-1]] = value


def _get(tree: Any, path: FieldPath) -> Any:
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _flag(path: FieldPath) -> str:
    return "--" + "-".join(path).replace("_", "-")


def _destination(path: FieldPath) -> str:
    return "setting_" + "__".join(path)


def _shown(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple | list) else str(default)
