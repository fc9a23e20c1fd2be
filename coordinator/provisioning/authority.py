"""The private certificate authority of one site. Pure: `now` is an argument, files are the caller's.

Every certificate begins when the authority began: a Pi has no battery clock and starts in the past, where a certificate
that begins today is not yet valid. For the same reason a revocation list is dated from the authority's start, too.
docs/decisions/0030.
"""

import ipaddress
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 20 * 365  # longer than a Pi lives: a new authority means a new card for every device
IDENTITY_DAYS = 2 * 365
# The clocks of the PC that makes an authority and of the Pi that uses it differ.
CLOCK_SLACK = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, PEM; the key is nowhere else."""

    certificate: str
    key: str
    serial: int
    expires: datetime


@dataclass(frozen=True)
class Revoked:
    """A certificate that no longer counts."""

    serial: int
    since: datetime


class Authority:
    """Signs certificates and revocation lists. Elliptic curves (P-256): a Pi checks them in a millisecond."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, site: str, now: datetime) -> "Authority":
        """A new authority for one site."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "NoNN Edge"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"authority of site {site}"),
            ]
        )
        start = now.astimezone(UTC).replace(microsecond=0) - CLOCK_SLACK
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> "Authority":
        """Read both from PEM; ValueError if they are none or do not belong together."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # what cryptography only warns of, an authority must not have
                loaded = x509.load_pem_x509_certificate(certificate)
                private = serialization.load_pem_private_key(key, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, Warning):
            raise ValueError("no certificate with an unencrypted private key") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != loaded.public_key():
            raise ValueError("certificate and private key do not belong together")
        return cls(loaded, private)

    @property
    def certificate(self) -> str:
        """Its own certificate, PEM: what everybody at the site trusts."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key(self) -> bytes:
        """Its private key, PEM, to be written with mode 0600."""
        return _key_pem(self._key)

    def issue_client(self, name: str, now: datetime, days: float = IDENTITY_DAYS) -> Issued:
        """A certificate that logs in at the broker as `name`."""
        return self._issue(name, (), ExtendedKeyUsageOID.CLIENT_AUTH, now, days)

    def issue_server(self, name: str, names: Sequence[str], now: datetime, days: float = IDENTITY_DAYS) -> Issued:
        """The broker's certificate: host names and addresses that clients may reach it by."""
        return self._issue(name, names, ExtendedKeyUsageOID.SERVER_AUTH, now, days)

    def revocation_list(self, revoked: Sequence[Revoked], number: int) -> str:
        """The list number `number` of certificates that no longer count, PEM.

        It never runs out before the authority: OpenSSL refuses everybody once a list is over, and that must not
        stop a site. A list with a higher number is dated later, and OpenSSL takes the latest one.
        """
        start = self._certificate.not_valid_before_utc
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(start + timedelta(seconds=number))
            .next_update(self._certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for entry in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(entry.since).build()
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def _issue(
        self, name: str, names: Sequence[str], usage: x509.ObjectIdentifier, now: datetime, days: float
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        until = now.astimezone(UTC).replace(microsecond=0) + timedelta(days=days)
        expires = min(until, self._certificate.not_valid_after_utc)
        serial = x509.random_serial_number()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(self._certificate.not_valid_before_utc)
            .not_valid_after(expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(list(map(_general_name, names))), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        return Issued(pem, _key_pem(key).decode(), serial, expires)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
