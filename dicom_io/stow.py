"""STOW-RS: objects sent to a DICOMweb service, each in a request of its own over one connection (PS3.18 10.5)."""

import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Final

import urllib3
from pynetdicom.dsutils import split_dataset
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry, Timeout

from dicom_io.errors import AssociationRejected, DicomError, ObjectRefused, PeerBusy, PeerRefused, PeerUnreachable
from dicom_io.handshake import explain
from dicom_io.http_watch import Watch
from dicom_io.sender import StoreOutcome, our_files_troubles_named, whatever_comes
from dicom_io.status import means_later, means_never
from dicom_io.stow_answer import Failure, StoreAnswer, read_answer

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
EXCHANGE_SECONDS = 4 * ANSWER_SECONDS
"""For an object and its answer, or the service is taken for one that is away: some answer a byte at a time and never end."""
_JSON: Final = "application/dicom+json"
_LONGEST_ANSWER_BYTES: Final = 1024 * 1024
_LONGEST_RETRY_AFTER_SECONDS: Final = 86400.0
_STORED: Final = frozenset({200, 202})
"""All, or some of it, if the answer has nothing against it (PS3.18 table 10.5.3-1)."""
_CONFLICT: Final = 409
_REASONS_OF_THE_KEPT: Final = frozenset({0x0000, 0x0111, 0xB000, 0xB006, 0xB007})
"""Failure reasons of an object that is kept: a duplicate, or a warning in the wrong place (PS3.18 table 10.5.3-1)."""
_NOT_LET_IN: Final = {
    401: "it does not know us: look at token, or username and password",
    403: "it knows us and lets us store nothing",
    404: "there is no DICOMweb service at this url",
    407: "a proxy before it does not let us through",
}
_LOOK_AROUND: Final = "look at the url, at what stands before it, such as a proxy, and at the log of the service"
_AWAY: Final = frozenset({502, 503, 504})
"""What a proxy says when there is no service behind it, and a service that is being looked after."""
_BUSY: Final = frozenset({408, 425, 429, 500, 507}) | _AWAY


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPeer:
    """A DICOMweb service."""

    url: str
    """Of the service, without ``/studies``."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Such as Authorization."""
    tls: ssl.SSLContext | None = None
    """For an https URL; by default the authorities that the system trusts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    body: bytes
    retry_after_seconds: float
    """0 where it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """The way to a service: one connection, and the watch over it."""

    peer: WebPeer
    pool: urllib3.PoolManager
    watch: Watch


def greet_service(peer: WebPeer) -> None:
    """Verify that a service answers, and lets us in; many offer no search, so what else it answers does not matter.

    Raises
    ------
    PeerUnreachable
        It does not answer, or a proxy does in its place.
    AssociationRejected
        It does not let us in, or its certificate does not do.
    """
    with _line(peer) as line:
        status = _request(line, "GET", "/studies?limit=1", None).status
    if status in _NOT_LET_IN.keys() - {404}:
        raise AssociationRejected(f"{peer.url} answered {status}: {_NOT_LET_IN[status]}.")
    if status in _AWAY:
        raise PeerUnreachable(f"{peer.url} answered {status}: it is away.")


def send_to_service(
    peer: WebPeer, paths: Sequence[Path], *, is_wanted: Callable[[Path], bool] = whatever_comes
) -> Iterator[StoreOutcome]:
    """Send files; yields one outcome for each that is still wanted when its turn comes, in order.

    What keeps one from being sent keeps the rest from it too, and so does a service that asks not to be tried again for a time.
    """
    with _line(peer) as line:
        away: DicomError | None = None
        for path in filter(is_wanted, paths):
            outcome: DicomError | None = away
            if away is None:
                outcome = _store(line, path)
                if isinstance(outcome, PeerUnreachable | AssociationRejected) or _asks_for_time(outcome):
                    away = outcome
            yield StoreOutcome(path=path, error=outcome)


def _store(line: _Line, path: Path) -> DicomError | None:
    try:
        with our_files_troubles_named():
            uid = str(split_dataset(path)[0].MediaStorageSOPInstanceUID)
            content = path.read_bytes()
    except PeerRefused as damaged:
        return damaged
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = head + content + f"\r\n--{boundary}--\r\n".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    try:
        answer = _request(line, "POST", "/studies", (kind, body))
    except DicomError as error:
        return error
    return _meaning(answer, line.peer, uid)


def _asks_for_time(outcome: DicomError | None) -> bool:
    return isinstance(outcome, PeerBusy) and outcome.retry_after_seconds > 0


def _meaning(answer: _Answer, peer: WebPeer, uid: str) -> DicomError | None:
    """From what a service answered to the error of an object; None where it keeps it."""
    status, told = answer.status, read_answer(answer.body)
    words = f"STOW-RS was answered {status}"
    failures = () if told is None else told.failures
    failed = next((failure for failure in failures if not _is_kept(failure, uid)), None)
    if failed is not None:
        return _refusal(failed, words, uid)
    if failures and status in _STORED | {_CONFLICT}:
        return None
    if status in _STORED:
        return _doubt(told, status, peer, uid)
    return _of_status(answer, peer)


def _of_status(answer: _Answer, peer: WebPeer) -> DicomError:
    """What a status that is no success means: nothing of the object, for a wrong url or a proxy may explain it as well."""
    status, words = answer.status, f"STOW-RS was answered {answer.status}"
    if status in _NOT_LET_IN:
        return AssociationRejected(f"{words} by {peer.url}: {_NOT_LET_IN[status]}.")
    if status in _BUSY:
        return PeerBusy(f"{words}: it may work later.", retry_after_seconds=answer.retry_after_seconds)
    if 400 <= status < 500:
        return PeerRefused(f"{words} by {peer.url}, without a failure reason: {_LOOK_AROUND}.")
    return PeerRefused(f"{words}.")


def _is_kept(failure: Failure, uid: str) -> bool:
    return failure.reason in _REASONS_OF_THE_KEPT and failure.is_of(uid)


def _refusal(failure: Failure, words: str, uid: str) -> DicomError:
    reason = failure.reason
    if reason is None:
        return PeerRefused(f"{words} with a failure, without a reason that can be read.")
    kind = PeerBusy if means_later(reason) else ObjectRefused if means_never(reason) and failure.is_of(uid) else PeerRefused
    return kind(f"{words}, failure reason 0x{reason:04X}.")


def _doubt(told: StoreAnswer | None, status: int, peer: WebPeer, uid: str) -> DicomError | None:
    """What speaks against a status of success, such as that of a login page."""
    if told is None:
        return PeerRefused(f"{peer.url} answered {status}, but not as a DICOMweb service: {_LOOK_AROUND}.")
    if told.kept and uid not in told.kept:
        return PeerRefused(f"STOW-RS was answered {status}, naming only other instances.")
    return None


def _request(line: _Line, method: str, resource: str, content: tuple[str, bytes] | None) -> _Answer:
    url, headers = line.peer.url.rstrip("/") + resource, {"Accept": _JSON, **line.peer.headers}
    body: BytesIO | None = None
    if content is not None:
        # Read by urllib3 piece by piece: a timeout holds for what is handed to the socket at once, and a line may be slow.
        headers |= {"Content-Type": content[0], "Content-Length": str(len(content[1]))}
        body = BytesIO(content[1])
    try:
        with line.watch.limit(EXCHANGE_SECONDS):
            answer = line.pool.request(method, url, headers=headers, body=body, redirect=False, preload_content=False)
            answered = answer.read(_LONGEST_ANSWER_BYTES)
            if len(answered) < _LONGEST_ANSWER_BYTES:
                answer.drain_conn()
            else:
                answer.close()  # the rest may have no end
    except (HTTPError, OSError) as error:
        raise (_overdue(line.peer) if line.watch.overdue else _in_words(error, line.peer)) from error
    except ValueError:  # of http.client, and quotes the header that it does not take
        raise (_overdue(line.peer) if line.watch.overdue else _unsayable(line.peer)) from None
    if line.watch.overdue:  # an answer without a length ends where its connection does
        raise _overdue(line.peer)
    return _Answer(status=answer.status, body=answered, retry_after_seconds=_retry_after_seconds(answer))


def _unsayable(peer: WebPeer) -> DicomError:
    return PeerUnreachable(f"No request can be made to {peer.url}: look at its url, token, username and password.")


def _overdue(peer: WebPeer) -> DicomError:
    return PeerUnreachable(f"{peer.url} takes more than {EXCHANGE_SECONDS:g} seconds to answer.")


def _retry_after_seconds(answer: urllib3.BaseHTTPResponse) -> float:
    try:
        return min(Retry().get_retry_after(answer) or 0.0, _LONGEST_RETRY_AFTER_SECONDS)
    except (InvalidHeader, ValueError, OverflowError):  # what is neither a number nor a date, or too much of either
        return 0.0


def _in_words(error: Exception, peer: WebPeer) -> DicomError:
    cause: BaseException | None = error
    while cause is not None:  # urllib3 wraps what happened
        if peer.tls is not None and isinstance(cause, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
            # In TLS 1.3 a caller whose certificate is refused hears of it when it has begun to talk, or not at all.
            return PeerUnreachable(f"{peer.url} ended the connection: does it want a certificate of ours, and know its CA?")
        if isinstance(cause, ssl.SSLError):
            return AssociationRejected(f"TLS with {peer.url} failed: {explain(cause)}.")
        cause = cause.__cause__ or cause.__context__
    return PeerUnreachable(f"{peer.url} does not answer: {type(error).__name__}.")


@contextmanager
def _line(peer: WebPeer) -> Iterator[_Line]:
    watch = Watch()
    with urllib3.PoolManager(
        timeout=Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
        retries=False,
        ssl_context=peer.tls,
        assert_hostname=None if peer.tls is None or peer.tls.check_hostname else False,  # urllib3 would look by itself
        maxsize=1,
    ) as pool:
        pool.pool_classes_by_scheme = watch.pools()
        try:
            yield _Line(peer=peer, pool=pool, watch=watch)
        finally:
            watch.close()
