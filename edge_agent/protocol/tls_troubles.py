"""Why TLS did not come about, in words for the person who can mend it. Pure."""

from typing import TYPE_CHECKING

# Not at run time: whoever has an error of ssl has loaded it, and a link without TLS does without its 4 MB.
if TYPE_CHECKING:
    import ssl

# OpenSSL's reason -> who refused what. Alerts come from the broker, and are about us.
_REASONS = {
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the broker refuses this device's certificate: it ran out; renew it",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the broker refuses this device's certificate: it was revoked",
    "TLSV1_ALERT_UNKNOWN_CA": "the broker refuses this device's certificate: another authority signed it",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the broker refuses this device's certificate: it is damaged, or not valid yet",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the broker refuses this device's certificate",
    "TLSV1_ALERT_DECRYPT_ERROR": "the broker refuses this device's certificate: its key is another one",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the broker wants a certificate: set certificate_file and key_file",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the broker wants a certificate: set certificate_file and key_file",
    "WRONG_VERSION_NUMBER": "there is no TLS on this port: another port, or a plain broker",
    "RECORD_LAYER_FAILURE": "there is no TLS on this port: another port, or a plain broker",
}
# X509_V_ERR_*: what we found wrong with the broker's certificate.
_NOT_YET_VALID, _EXPIRED = 9, 10
_STRANGERS = frozenset((2, 18, 19, 20, 21))
_OTHER_NAME = frozenset((62, 64))


def tls_trouble(error: OSError) -> str:
    """One line; what OpenSSL says where we know no better.

    >>> tls_trouble(ConnectionResetError(104, "Connection reset by peer"))
    'Connection reset by peer'
    """
    if not is_tls_error(error):
        return error.strerror or str(error)
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return _about_the_broker(error)
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    return _REASONS.get(reason or "", f"TLS: {reason or error}")


def is_tls_error(error: BaseException) -> bool:
    """Whether OpenSSL raised it.

    >>> import ssl
    >>> is_tls_error(ssl.SSLCertVerificationError()), is_tls_error(ConnectionResetError())
    (True, False)
    """
    return type(error).__module__ == "ssl"


def _about_the_broker(error: "ssl.SSLCertVerificationError") -> str:
    code = error.verify_code
    if code in _STRANGERS:
        return "the broker's certificate is not of the authority in ca_file: a wrong ca_file, or not our broker"
    if code == _EXPIRED:
        return "the broker's certificate ran out; renew it: nonn-coordinator device renew broker"
    if code == _NOT_YET_VALID:
        return "the broker's certificate is not valid yet: this device's clock is behind (timedatectl)"
    if code in _OTHER_NAME:
        return f"the broker's certificate is for other names: {error.verify_message.rstrip('.')}"
    return f"the broker's certificate: {error.verify_message}"
