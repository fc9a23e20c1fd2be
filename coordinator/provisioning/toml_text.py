"""Tables as TOML text. Pure."""

import json
from collections.abc import Mapping


def toml_text(tables: Mapping[str, Mapping[str, object]]) -> str:
    r"""One [table] after the other; the table "" stands on top without a header.

    >>> print(toml_text({"": {"site": "home"}, "broker": {"port": 8883, "ca": "A\nB\n"}}), end="")
    site = "home"
    <BLANKLINE>
    [broker]
    port = 8883
    ca = '''
    A
    B
    '''
    """
    parts = []
    for name, values in tables.items():
        lines = [f"{key} = {_value(value)}\n" for key, value in values.items()]
        parts.append("".join([f"[{name}]\n" if name else "", *lines]))
    return "\n".join(parts)


def _value(value: object) -> str:
    if isinstance(value, str) and "\n" in value and "'''" not in value:
        return f"'''\n{value}'''"
    # JSON's strings, numbers, lists and booleans are TOML's; DEL is the one character that TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
