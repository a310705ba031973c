"""Deliver: send what is due to one destination, over one association, and write down what it answered."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

from urllib3.util import make_headers

from dicom_io.commitment import Commitment, CommitmentRequest, ask_to_commit
from dicom_io.errors import DicomError, ObjectRefused, PeerRefused, PeerUnavailable, PeerUnreachable
from dicom_io.sender import StoreOutcome, echo, send
from dicom_io.stow import WebPeer, greet_service, send_to_service
from dicom_io.values import Peer
from worker.destination import Destination
from worker.errors import ConfigurationError, DatabaseUnavailable
from worker.files import is_changed
from worker.settings import Settings
from worker.tls import client_context, service_context
from worker.values import DueDelivery

_MISSING = "Our own file is missing: 'cxr-worker reprocess' makes it anew."
CHANGED = "Our own file was changed since it was made: 'cxr-worker reprocess' makes it anew."
"""Why nobody is sent a report: its file holds other bytes than were written."""


def peer_of(destination: Destination) -> Peer:
    """The application entity behind a destination."""
    return Peer(ae_title=destination.ae_title, host=destination.host, port=destination.port)


def deliver(
    due: list[DueDelivery], destination: Destination, settings: Settings, *, is_wanted: Callable[[DueDelivery], bool]
) -> Iterator[tuple[DueDelivery, StoreOutcome]]:
    """Send reports in the order given; answer what became of each as soon as it is known.

    `is_wanted` is asked right before each is sent; of one that is not any more nothing is answered.

    Raises
    ------
    DatabaseUnavailable
        `is_wanted` could not say; nothing was sent from there on.
    """
    whole = []
    for delivery in due:
        trouble = _trouble_with(delivery)
        if trouble is None:
            whole.append(delivery)
        else:
            yield delivery, StoreOutcome(path=delivery.path, error=trouble)
    if whole:
        yield from _send(whole, destination, settings, is_wanted=is_wanted)


def _send(
    due: list[DueDelivery], destination: Destination, settings: Settings, *, is_wanted: Callable[[DueDelivery], bool]
) -> Iterator[tuple[DueDelivery, StoreOutcome]]:
    by_path = {delivery.path: delivery for delivery in due}
    failures: list[DatabaseUnavailable] = []

    def is_path_wanted(path: Path) -> bool:
        try:
            return not failures and is_wanted(by_path[path])
        except DatabaseUnavailable as error:  # no failure of the destination's: the others stay due
            failures.append(error)
            return False

    try:
        if destination.url:
            outcomes = send_to_service(_service(destination, settings), list(by_path), is_wanted=is_path_wanted)
        else:
            tls = _tls(destination, settings)
            outcomes = send(
                peer_of(destination),
                list(by_path),
                calling_ae_title=settings.dicom.ae_title,
                tls=tls,
                is_wanted=is_path_wanted,
            )
    except PeerUnavailable as error:
        for path, delivery in by_path.items():
            yield delivery, StoreOutcome(path=path, error=error)
        return
    for outcome in outcomes:
        yield by_path[outcome.path], outcome
    if failures:
        raise failures[0]


def _trouble_with(delivery: DueDelivery) -> DicomError | None:
    """Why a report cannot be sent to anybody, where its file is to blame."""
    try:
        delivery.path.stat()
        return ObjectRefused(CHANGED) if is_changed(delivery.path, delivery.sha256) else None
    except FileNotFoundError:
        return PeerRefused(_MISSING)
    except OSError:  # who sends it tells of it
        return None


def ask(
    due: list[DueDelivery],
    destination: Destination,
    settings: Settings,
    *,
    transaction_uid: str,
    settle: Callable[[Commitment], None],
) -> None:
    """Ask a destination to vouch for reports that it stored; `settle` is handed an answer that comes at once.

    Raises
    ------
    dicom_io.errors.DicomError
        It cannot be asked now, or does not offer storage commitment.
    """
    ask_to_commit(
        peer_of(destination),
        CommitmentRequest(
            transaction_uid=transaction_uid,
            objects=[(delivery.sop_class_uid, delivery.sop_instance_uid) for delivery in due],
        ),
        calling_ae_title=settings.dicom.ae_title,
        settle=settle,
        tls=_tls(destination, settings),
    )


def greet(destination: Destination, settings: Settings) -> None:
    """Verify that a destination answers C-ECHO, or its DICOMweb service a request.

    Raises
    ------
    dicom_io.errors.DicomError
        It does not.
    """
    if destination.url:
        greet_service(_service(destination, settings))
    else:
        echo(peer_of(destination), calling_ae_title=settings.dicom.ae_title, tls=_tls(destination, settings))


def _service(destination: Destination, settings: Settings) -> WebPeer:
    headers: dict[str, str] = {}
    if token := destination.token.get_secret_value():
        headers["Authorization"] = f"Bearer {token}"
    elif destination.username:
        headers = make_headers(basic_auth=f"{destination.username}:{destination.password.get_secret_value()}")
    return WebPeer(url=destination.url, headers=headers, tls=_tls(destination, settings))


def _tls(destination: Destination, settings: Settings) -> ssl.SSLContext | None:
    try:
        return service_context(settings, destination) if destination.url else client_context(settings, destination)
    except ConfigurationError as error:  # a certificate that cannot be used is seen where the others' troubles are
        raise PeerUnreachable(str(error)) from error
