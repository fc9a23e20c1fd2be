"""Our own reading of a certificate's times says what cryptography's does, and garbage is a ValueError."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.console.certificate_times import validity_of_pem

EC_KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(start: datetime, end: datetime, name: str = "broker.local", key=EC_KEY) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 2**150 + 1, start, end)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


# Seconds from 1950 to 2400: from 2050 on, certificates write the year with four digits.
moments = st.integers(-631_152_000, 13_569_465_600).map(lambda second: datetime.fromtimestamp(second, UTC))


@given(moments, moments)
def test_times_of_both_forms_are_read(one: datetime, other: datetime) -> None:
    start, end = sorted((one, other))
    assert validity_of_pem(certificate(start, end)) == (start, end)


def test_the_first_of_several_counts_whatever_its_key_and_what_stands_before_it() -> None:
    start, end = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    own = certificate(start, end, "a long name " * 5, rsa.generate_private_key(65537, 2048))
    authority = certificate(datetime(2020, 1, 1, tzinfo=UTC), datetime(2060, 1, 1, tzinfo=UTC))
    found = x509.load_pem_x509_certificate(own)
    expected = (found.not_valid_before_utc, found.not_valid_after_utc)
    assert validity_of_pem(b"# written by device add\n" + own + authority) == expected == (start, end)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff"])
def test_what_is_no_certificate_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        validity_of_pem(content)


@given(st.integers(min_value=0), st.binary(max_size=40))
def test_damage_is_a_value_error_or_other_times(place: int, junk: bytes) -> None:
    content = bytearray(certificate(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)))
    place %= len(content)
    content[place : place + len(junk)] = junk
    try:
        start, end = validity_of_pem(bytes(content))
    except ValueError:
        return
    assert start.tzinfo is end.tzinfo is UTC
