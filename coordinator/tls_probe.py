"""Looks at a broker's TLS from outside MQTT: who refuses whom, and until when certificates count."""

import socket
import ssl
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from edge_agent.console.own_certificate import certificate_validity
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.mqtt_socket import tls_context
from edge_agent.protocol.tls_troubles import tls_trouble

# With TLS 1.3 a broker says what it thinks of our certificate after the handshake; silence means it is content.
VERDICT_S = 1.0


@dataclass(frozen=True)
class TlsFacts:
    """What a handshake showed. `speaks_tls`: asked only where we would not have used it."""

    trouble: str = ""
    speaks_tls: bool = False
    broker_until: datetime | None = None
    own_from: datetime | None = None
    own_until: datetime | None = None


def probe_tls(settings: BrokerSettings, timeout_s: float = 5.0) -> TlsFacts:
    """Shake hands once with our certificate; without ca_file, only find out whether the port wants TLS."""
    if settings.ca_file is None:
        return TlsFacts(speaks_tls=_speaks_tls(settings, timeout_s))
    own_from, own_until = certificate_validity(settings.certificate_file) or (None, None)
    trouble, broker_until = "", None
    try:
        context = tls_context(settings)
        if context is None:
            return TlsFacts()
        with (
            socket.create_connection((settings.host, settings.port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=settings.host) as connection,
        ):
            certificate = connection.getpeercert(binary_form=True)
            if certificate is not None:
                broker_until = x509.load_der_x509_certificate(certificate).not_valid_after_utc
            connection.settimeout(VERDICT_S)
            if connection.recv(1) == b"":
                trouble = "the broker closes the connection after the handshake"
    except TimeoutError:
        pass
    except OSError as error:
        trouble = tls_trouble(error)
    return TlsFacts(trouble, True, broker_until, own_from, own_until)


def _speaks_tls(settings: BrokerSettings, timeout_s: float) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only asking, nothing is sent
    try:
        with (
            socket.create_connection((settings.host, settings.port), timeout_s) as plain,
            context.wrap_socket(plain) as connection,
        ):
            return connection.version() is not None
    except OSError:
        return False
