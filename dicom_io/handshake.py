"""What a failed TLS handshake means, in words that name the cure (PS3.15 B.12)."""

import ssl


def explain(error: OSError) -> str:
    """What a failed handshake means, in words that name the cure, and never what the peer's certificate says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _UNVERIFIED.get(error.verify_code, f"its certificate is not valid: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        for part, words in _REASONS.items():
            if part in reason:
                return words
        return f"the TLS handshake failed: {reason or 'closed meanwhile'}"
    if isinstance(error, TimeoutError):
        return "nothing came in time"
    return error.strerror or type(error).__name__


# Codes of X509_V_ERR_… in OpenSSL's x509_vfy.h.
_UNVERIFIED = {
    9: "its certificate is not yet valid: look at both clocks",
    10: "its certificate has expired: renew it there",
    18: "its certificate is signed by itself and not known: add it to the ca",
    19: "its certificate is signed by a CA that is not in the ca",
    20: "its certificate is signed by a CA that is not in the ca",
    21: "its certificate is signed by a CA that is not in the ca, or it does not send the one between",
    26: "its certificate is not for this use (Extended Key Usage: a caller needs clientAuth, a listener serverAuth)",
    62: "its certificate does not name the host that is configured: name it there, or set check_name = false",
    64: "its certificate does not name the address that is configured: name it there, or set check_name = false",
}
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate: give it one that the ca signed",
    "CERTIFICATE_REQUIRED": "it asks for our certificate: set client_certificate",
    "HTTP_REQUEST": "plain HTTP came instead of TLS",
    "WRONG_VERSION_NUMBER": "it speaks no TLS on this port",
    "BAD_RECORD_TYPE": "it speaks no TLS on this port",
    "RECORD_LAYER_FAILURE": "it speaks no TLS on this port",
    "PACKET_LENGTH_TOO_LONG": "it speaks no TLS on this port",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS 1.2 or 1.3",
    "PROTOCOL_VERSION": "it speaks no TLS 1.2 or 1.3",
    "NO_SHARED_CIPHER": "it offers no cipher suite of BCP 195",
    "HANDSHAKE_FAILURE": "no cipher suite in common, or it wants a certificate of ours",
    "ALERT_UNKNOWN_CA": "it does not know the CA of our certificate: add it there",
    "ALERT_CERTIFICATE_EXPIRED": "it says that our certificate has expired: renew it",
    "ALERT_BAD_CERTIFICATE": "it refuses our certificate",
    "ALERT_CERTIFICATE_UNKNOWN": "it refuses our certificate",
    "ALERT_UNSUPPORTED_CERTIFICATE": "it refuses our certificate",
    "UNEXPECTED_EOF": "it closed the connection during the handshake",
}
