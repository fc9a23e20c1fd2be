"""What brokers' reason codes mean, in words. Pure; OASIS MQTT 5.0, section 2.4."""

UNSUPPORTED_VERSION = 0x84
# Trying again with the same login does not help; the words go to people.
REFUSALS = frozenset((0x85, 0x86, 0x87, 0x8A))
_WORDS = {
    0x80: "Unspecified error", 0x81: "Malformed packet", 0x82: "Protocol error", 0x83: "Implementation specific error",
    0x84: "Unsupported protocol version", 0x85: "Client identifier not valid", 0x86: "Bad user name or password",
    0x87: "Not authorized", 0x88: "Server unavailable", 0x89: "Server busy", 0x8A: "Banned",
    0x8B: "Server shutting down", 0x8C: "Bad authentication method", 0x8D: "Keep alive timeout",
    0x8E: "Session taken over: another program logs in with this name", 0x8F: "Topic filter invalid",
    0x90: "Topic name invalid", 0x93: "Receive maximum exceeded", 0x95: "Packet too large",
    0x96: "Message rate too high", 0x97: "Quota exceeded", 0x98: "Administrative action", 0x9A: "Retain not supported",
    0x9B: "QoS not supported", 0x9C: "Use another server", 0x9D: "Server moved",
    0x9E: "Shared subscriptions not supported", 0x9F: "Connection rate exceeded",
    0xA2: "Wildcard subscriptions not supported",
}  # fmt: skip
# CONNACK of MQTT 3.1.1 counts from 1; the same meanings in MQTT 5's numbers.
_OLD_LOGIN_CODES = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}


def login_code(code: int) -> int:
    """A CONNACK's code of either version as one of MQTT 5."""
    return _OLD_LOGIN_CODES.get(code, code)


def words(code: int) -> str:
    """What people read.

    >>> words(0x87)
    'Not authorized'
    """
    return _WORDS.get(code, f"reason {code:#x}")
