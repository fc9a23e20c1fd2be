"""What a broken agreement raises; caught in one place per loop, counted and logged."""


class ProtocolError(Exception):
    """A message or file that breaks docs/protocol.md."""


class DecodeError(ProtocolError):
    """Bytes that are not the message they should be."""


class UnsupportedVersionError(ProtocolError):
    """A message of a protocol version that this program does not speak."""


class ManifestError(ProtocolError):
    """A deployment that is incomplete, contradictory or does not match its files."""
