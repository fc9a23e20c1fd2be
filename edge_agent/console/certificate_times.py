"""From when until when a certificate counts, read from its DER bytes: 6 MB less than importing cryptography for it.

Nothing is verified here, so nothing may be trusted for it: TLS does that. X.690 (DER) and RFC 5280, section 4.1.
"""

import base64
import re
from datetime import UTC, datetime

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_LONG_LENGTH = 0x80  # set: the other bits say how many bytes the length has
_BEFORE_VALIDITY = 3  # serial number, signature algorithm, issuer


def validity_of_pem(content: bytes) -> tuple[datetime, datetime]:
    """NotBefore and notAfter of the first certificate; ValueError where there is none, or it is damaged."""
    found = _PEM.search(content)
    if found is None:
        raise ValueError("no certificate in PEM")
    tag, certificate, _ = _read(base64.b64decode(found[1]))
    _, inside, _ = _read(certificate)
    first, _, rest = _read(inside)
    if first == _VERSION:
        inside = rest
    for _ in range(_BEFORE_VALIDITY):
        _, _, inside = _read(inside)
    validity_tag, validity, _ = _read(inside)
    if (tag, validity_tag) != (_SEQUENCE, _SEQUENCE):
        raise ValueError("no certificate")
    start_tag, start, rest = _read(validity)
    end_tag, end, _ = _read(rest)
    return _time(start_tag, start), _time(end_tag, end)


def _read(content: bytes) -> tuple[int, bytes, bytes]:
    """One DER element: its tag, its content, and what follows it."""
    if len(content) < 2:
        raise ValueError("cut short")
    tag, length, start = content[0], content[1], 2
    if length & _LONG_LENGTH:
        start += length & ~_LONG_LENGTH
        length = int.from_bytes(content[2:start], "big")
    if start + length > len(content):
        raise ValueError("cut short")
    return tag, content[start : start + length], content[start + length :]


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: 50 to 99 are of the last century
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
