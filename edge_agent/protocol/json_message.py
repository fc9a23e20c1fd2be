"""The JSON messages of the protocol: bytes -> model, strictly. docs/protocol.md, sections 5 and 6."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from edge_agent.protocol.errors import DecodeError, UnsupportedVersionError

VERSION = 1
# A thousand probabilities take 22 KB, 256 students of one device 50 KB: what is longer is not one of ours.
MAX_JSON_BYTES = 256 * 1024
# JSON consumers (browsers, Node-RED) read numbers as doubles: integers are exact up to here.
MAX_INTEGER = 2**53 - 1

JsonMessage = TypeVar("JsonMessage", bound=BaseModel)


def decode_json(kind: type[JsonMessage], payload: bytes, max_bytes: int = MAX_JSON_BYTES) -> JsonMessage:
    """Read a message with a version field `v`; UnsupportedVersionError, or DecodeError naming the field."""
    name = kind.__name__
    if len(payload) > max_bytes:
        raise DecodeError(f"{name}: {len(payload)} bytes, expected at most {max_bytes}")
    try:
        message = kind.model_validate_json(payload, strict=True)
    except ValidationError as error:
        # The version first: other fields of another version may look like anything.
        problems = error.errors(include_url=False)
        first = next((problem for problem in problems if problem["loc"] == ("v",)), problems[0])
        if first["loc"] == ("v",):
            text = f"{name}: version {str(first['input'])[:20]!r}, this program speaks {VERSION}"
            raise UnsupportedVersionError(text) from None
        where = ".".join(map(str, first["loc"]))
        raise DecodeError(f"{name}: {where + ': ' if where else ''}{first['msg']}"[:300]) from None
    if "v" not in message.model_fields_set:
        raise DecodeError(f"{name}: v: the version is missing")
    return message
