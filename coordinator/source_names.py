"""Names of sources that come and go with one program. Pure."""

import re

_PASSING = re.compile(r"(client|doctor|request)-.+|dashboard")


def is_passing(source: str) -> bool:
    """True for the sources of `classify`, `doctor`, requests and the dashboard's own images.

    >>> is_passing("client-1f2e3d4c"), is_passing("cam-door")
    (True, False)
    """
    return _PASSING.fullmatch(source) is not None


def metric_label(source: str) -> str:
    """A label that does not grow with every call of a command.

    >>> metric_label("client-1f2e3d4c"), metric_label("cam-door")
    ('client', 'cam-door')
    """
    return source.partition("-")[0] if is_passing(source) else source
