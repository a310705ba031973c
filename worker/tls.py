"""TLS by BCP 195 (RFC 9325), as PS3.15 B.12 asks for: which contexts we listen and send with.

TLS 1.2 and 1.3 only; with 1.2 ephemeral keys and authenticated encryption only; no compression, renegotiation or resumption:
each association shows its certificate anew.
"""

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from worker.destination import Destination
from worker.errors import ConfigurationError
from worker.setting_types import CertificateSettings
from worker.settings import AuditSettings, Settings

_CIPHERS_OF_TLS_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
_OURS = "dicom.tls"
_AUDIT = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCertificate:
    """A certificate that the configuration names."""

    key: str
    """The key of the configuration, such as ``dicom.tls.certificate``."""
    path: Path
    not_before: datetime
    not_after: datetime


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What the TLS port is listened on with; None where none is configured.

    Raises
    ------
    ConfigurationError
        One line that names the key, the file and the cure.
    """
    tls = settings.dicom.tls
    if tls is None:
        return None
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    _show(context, tls, _OURS)
    _trust(context, tls.ca, f"{_OURS}.ca")
    context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_certificate else ssl.CERT_OPTIONAL
    return context


def client_context(settings: Settings, destination: Destination) -> ssl.SSLContext | None:
    """What a destination is called with; None where it is called without TLS.

    Read anew at each call: a renewed certificate needs no restart.

    Raises
    ------
    ConfigurationError
        One line that names the key, the file and the cure.
    """
    if not destination.tls:
        return None
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = destination.check_name
    where = _where(destination)
    ca, key = _ca_of(destination, where, settings)
    _trust(context, ca, key)
    _show_ours(context, destination.client_certificate, where, settings)
    return context


def service_context(settings: Settings, destination: Destination) -> ssl.SSLContext | None:
    """What a DICOMweb service is called with; None where it is called without TLS. By default the system says who is trusted.

    Raises
    ------
    ConfigurationError
        One line that names the key, the file and the cure.
    """
    if not destination.url.startswith("https:"):
        return None
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = destination.check_name
    where = _where(destination)
    if destination.ca is not None:
        _trust(context, destination.ca, f"{where}: ca")
    else:
        context.load_default_certs()
    _show_ours(context, destination.client_certificate, where, settings)
    return context


def audit_context(settings: Settings, audit: AuditSettings) -> ssl.SSLContext:
    """What the audit repository is called with, read anew at each call.

    Raises
    ------
    ConfigurationError
        One line that names the key, the file and the cure.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = audit.check_name
    _trust(context, *_ca_of(audit, _AUDIT, settings))
    _show_ours(context, audit.client_certificate, _AUDIT, settings)
    return context


def certificate_files(settings: Settings) -> dict[Path, str]:
    """Every file of certificates that the configuration names, and the key that names it first."""
    named: dict[Path, str] = {}
    if (tls := settings.dicom.tls) is not None:
        named |= {tls.ca: f"{_OURS}.ca", tls.certificate: f"{_OURS}.certificate"}
    for destination in settings.destinations:
        if destination.tls or destination.url:
            if destination.tls or destination.ca is not None:
                named.setdefault(*_ca_of(destination, _where(destination), settings))
            if destination.client_certificate is not None:
                key = f"{_where(destination)}: client_certificate.certificate"
                named.setdefault(destination.client_certificate.certificate, key)
    if (audit := settings.audit) is not None and audit.transport == "tls":
        named.setdefault(*_ca_of(audit, _AUDIT, settings))
        if audit.client_certificate is not None:
            named.setdefault(audit.client_certificate.certificate, f"{_AUDIT}: client_certificate.certificate")
    return named


def key_files(settings: Settings) -> list[Path]:
    """Every file of a private key, or of its password, that the configuration names."""
    places = (settings.dicom.tls, *(place.client_certificate for place in (*settings.destinations, settings.audit) if place))
    return [file for own in places if own for file in (own.key, own.key_password_file) if file is not None]


def known_certificate(path: Path, key: str) -> KnownCertificate:
    """The certificate of a file that ends first.

    Raises
    ------
    ConfigurationError
        The file cannot be read, or holds no certificate.
    """
    first = min(_read_certificates(path, key), key=lambda certificate: certificate.not_valid_after_utc)
    return KnownCertificate(key=key, path=path, not_before=first.not_valid_before_utc, not_after=first.not_valid_after_utc)


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_OF_TLS_1_2)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a site may trust one certificate, not all that its CA signed
    return context


def _where(destination: Destination) -> str:
    return f"destination {destination.name}"


def _ca_of(peer: Destination | AuditSettings, where: str, settings: Settings) -> tuple[Path, str]:
    if peer.ca is not None:
        return peer.ca, f"{where}: ca"
    if settings.dicom.tls is not None:
        return settings.dicom.tls.ca, f"{_OURS}.ca"
    raise ConfigurationError(f"{where}: tls needs a ca, there or in [dicom.tls].")


def _show_ours(context: ssl.SSLContext, own: CertificateSettings | None, where: str, settings: Settings) -> None:
    """Have a context show the certificate that is for this peer, else that of [dicom.tls], where there is one."""
    if own is not None:
        _show(context, own, f"{where}: client_certificate")
    elif settings.dicom.tls is not None:
        _show(context, settings.dicom.tls, _OURS)


def _trust(context: ssl.SSLContext, ca: Path, key: str) -> None:
    _read_certificates(ca, key)
    context.load_verify_locations(cafile=ca)


def _show(context: ssl.SSLContext, own: CertificateSettings, where: str) -> None:
    """Have a context show our certificate, after a look that finds better words than OpenSSL's."""
    certificate = _read_certificates(own.certificate, f"{where}.certificate")[0]
    data = _read(own.key, f"{where}.key")
    password = _password(own, where) if b"ENCRYPTED" in data else None
    try:
        # The check of an RSA key's primes takes 70 ms at each call; that it fits the certificate is looked at below.
        key = serialization.load_pem_private_key(data, password, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm as error:
        raise ConfigurationError(f"{where}.key: {own.key} holds a key of a kind that is not supported.") from error
    except (ValueError, TypeError) as error:
        if password is not None:
            raise ConfigurationError(f"{where}.key_password: wrong for {own.key}, or the file is damaged.") from error
        raise ConfigurationError(f"{where}.key: {own.key} holds no private key in PEM.") from error
    if _public(key.public_key()) != _public(certificate.public_key()):
        raise ConfigurationError(f"{where}.key: {own.key} does not belong to the first certificate in {own.certificate}.")
    try:
        context.load_cert_chain(own.certificate, own.key, password)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{where}.certificate: {own.certificate} cannot be used: {error.reason or error}; 2048 bits (RSA) or 256 (EC) and"
            " SHA-256 are the least."
        ) from error


def _public(key: object) -> bytes:
    public: bytes = key.public_bytes(  # type: ignore[attr-defined]  # every kind of key that a certificate may hold has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public


def _password(own: CertificateSettings, where: str) -> bytes:
    if own.key_password_file is not None:
        text = _read(own.key_password_file, f"{where}.key_password_file").rstrip(b"\r\n")
    else:
        text = own.key_password.get_secret_value().encode()
    if not text:
        raise ConfigurationError(f"{where}.key: {own.key} is encrypted: set key_password or key_password_file.")
    return text


def _read_certificates(path: Path, key: str) -> list[x509.Certificate]:
    data = _read(path, key)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        cure = f"'openssl x509 -inform der -in {path} -out FILE.pem' converts DER"
        raise ConfigurationError(f"{key}: {path} holds no certificate in PEM; {cure}.") from error


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigurationError(f"{key}: {path}: no such file.") from error
    except OSError as error:
        raise ConfigurationError(
            f"{key}: {path} cannot be read: {error.strerror}. The worker's account must be able to."
        ) from error
