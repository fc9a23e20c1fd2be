"""Words of the command line that init and device have in common."""

import argparse
from datetime import UTC, datetime
from typing import Any

from edge_agent.protocol.topics import check_id


def add_days(parser: Any) -> None:
    """Add --days."""
    parser.add_argument("--days", type=days, default=730, metavar="N", help="life of certificates [730]")


def identifier(text: str) -> str:
    """A name as topics, files and hosts have it."""
    try:
        return check_id(text, "name")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def port(text: str) -> int:
    """A TCP port."""
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def days(text: str) -> int:
    """The life of a certificate."""
    if not text.isdecimal() or not 1 <= int(text) <= 7300:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to 7300")
    return int(text)


def now() -> datetime:
    """The time that certificates are made at."""
    return datetime.now(UTC)
