"""STOW-RS: objects sent to a DICOMweb service, each in a request of its own over one connection (PS3.18 10.5)."""

import json
import secrets
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from dicom_io.errors import AssociationRejected, DicomError, ObjectRefused, PeerBusy, PeerRefused, PeerUnreachable
from dicom_io.sender import StoreOutcome
from dicom_io.status import means_later, means_never, means_stored

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
_JSON: Final = "application/dicom+json"
_LONGEST_ANSWER_BYTES: Final = 1024 * 1024
_FAILED_SOP_SEQUENCE, _FAILURE_REASON = "00081198", "00081197"
_NOT_LET_IN: Final = frozenset({401, 403, 404, 407})
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507})


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPeer:
    """A DICOMweb service."""

    url: str
    """Of the service, without ``/studies``."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Such as Authorization."""
    tls: ssl.SSLContext | None = None
    """For an https URL; by default the authorities that the system trusts."""


def greet_service(peer: WebPeer) -> None:
    """Verify that a service answers, whatever it answers, and lets us in.

    Raises
    ------
    PeerUnreachable
        It does not answer.
    AssociationRejected
        It does not let us in, or its certificate does not do.
    """
    with _pool(peer) as pool:
        status = _request(pool, "GET", f"{peer.url.rstrip('/')}/studies?limit=1", peer, None)[0]
    if status in {401, 403, 407}:
        raise AssociationRejected(f"{peer.url} answered {status}: it does not let us in.")


def send_to_service(peer: WebPeer, paths: Sequence[Path]) -> Iterator[StoreOutcome]:
    """Send files; yields one outcome for each, in order. What keeps one from being sent keeps the rest from it too."""
    with _pool(peer) as pool:
        away: DicomError | None = None
        for path in paths:
            outcome: DicomError | None = away
            if away is None:
                outcome = _store(pool, peer, path)
                if isinstance(outcome, PeerUnreachable | AssociationRejected):
                    away = outcome
            yield StoreOutcome(path=path, error=outcome)


def _store(pool: urllib3.PoolManager, peer: WebPeer, path: Path) -> DicomError | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        return PeerRefused(f"Our own file cannot be read: {error.strerror}.")
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = head + content + f"\r\n--{boundary}--\r\n".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    try:
        status, answer = _request(pool, "POST", f"{peer.url.rstrip('/')}/studies", peer, (kind, body))
    except DicomError as error:
        return error
    return _meaning(status, _failure_reasons(answer), peer)


def _meaning(status: int, reasons: Sequence[int], peer: WebPeer) -> DicomError | None:
    words = f"STOW-RS was answered {status}"
    failed = [reason for reason in reasons if not means_stored(reason)]
    if failed:
        told = f"{words}, failure reason 0x{failed[0]:04X}."
        kind = PeerBusy if means_later(failed[0]) else ObjectRefused if means_never(failed[0]) else PeerRefused
        return kind(told)
    if status in {200, 202} or (status == 409 and reasons):
        return None
    if status in _NOT_LET_IN:
        return AssociationRejected(f"{words} by {peer.url}: it does not let us in, or is not there.")
    if status in _BUSY:
        return PeerBusy(f"{words}: it may work later.")
    return (ObjectRefused if 400 <= status < 500 else PeerRefused)(f"{words}.")


def _failure_reasons(answer: bytes) -> list[int]:
    """The Failure Reasons of an answer in JSON (PS3.18 annex F and table I.2-1); empty where it is none."""
    try:
        told: Any = json.loads(answer)
        if isinstance(told, list):
            told = told[0]
        return [int(item[_FAILURE_REASON]["Value"][0]) for item in told.get(_FAILED_SOP_SEQUENCE, {}).get("Value", [])]
    except (ValueError, LookupError, TypeError, AttributeError):
        return []


def _request(
    pool: urllib3.PoolManager, method: str, url: str, peer: WebPeer, content: tuple[str, bytes] | None
) -> tuple[int, bytes]:
    headers = {"Accept": _JSON, **peer.headers}
    if content is not None:
        headers["Content-Type"] = content[0]
    try:
        answer = pool.request(
            method, url, headers=headers, body=content[1] if content else None, redirect=False, preload_content=False
        )
        body = answer.read(_LONGEST_ANSWER_BYTES)
        answer.drain_conn()
    except urllib3.exceptions.SSLError as error:
        raise AssociationRejected(f"TLS with {peer.url} failed: {_words(error)}.") from error
    except (HTTPError, OSError) as error:
        raise PeerUnreachable(f"{peer.url} does not answer: {type(error).__name__}.") from error
    return answer.status, body


def _words(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.args[0] if cause.args and isinstance(cause.args[0], BaseException) else None
    return "no agreement on how to talk"


def _pool(peer: WebPeer) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS), retries=False, ssl_context=peer.tls, maxsize=1
    )
