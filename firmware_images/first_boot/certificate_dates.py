"""From when until when a certificate is valid, read out of its DER bytes. Pure."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

_SEQUENCE = 0x30
_VERSION = 0xA0  # [0], absent in version 1
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18


def validity(pem: str) -> tuple[datetime, datetime]:
    """Return notBefore and notAfter of the first certificate in `pem`; ValueError if it is none (RFC 5280, 4.1)."""
    end = pem.find("-----END CERTIFICATE-----")
    start = pem.find("-----BEGIN CERTIFICATE-----")
    if start < 0 or end < start:
        raise ValueError("no certificate")
    der = ssl.PEM_cert_to_DER_cert(pem[start : end + len("-----END CERTIFICATE-----")] + "\n")
    certificate = _only(der)
    to_be_signed = _only(certificate)
    fields = [(kind, value) for kind, value in _elements(to_be_signed) if kind != _VERSION]
    # serial number, signature algorithm, issuer, validity, ...
    if len(fields) < 4 or fields[3][0] != _SEQUENCE:
        raise ValueError("a certificate without validity")
    times = [_time(kind, value) for kind, value in _elements(fields[3][1])]
    if len(times) != 2:
        raise ValueError("a validity without two times")
    return times[0], times[1]


def _only(content: bytes) -> bytes:
    kind, value = next(_elements(content), (0, b""))
    if kind != _SEQUENCE:
        raise ValueError("not a DER sequence")
    return value


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(content):
        if position + 2 > len(content):
            raise ValueError("DER ends early")
        kind, length = content[position], content[position + 1]
        position += 2
        if length >= 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or position + count > len(content):
                raise ValueError("DER length is wrong")
            length = int.from_bytes(content[position : position + count])
            position += count
        if position + length > len(content):
            raise ValueError("DER ends early")
        yield kind, content[position : position + length]
        position += length


def _time(kind: int, value: bytes) -> datetime:
    text = value.decode("ascii", errors="replace")
    form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}.get(kind)
    if form is None:
        raise ValueError("not a DER time")
    return datetime.strptime(text, form).replace(tzinfo=UTC)
