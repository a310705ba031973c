"""The sending end: C-ECHO, and C-STORE of files as they lie on disk (PS3.4 annexes A and B)."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import time by pynetdicom

from dicom_io.errors import DicomError, PeerBusy, PeerRefused, PeerUnavailable
from dicom_io.foreign import any_error_as
from dicom_io.listener import tune_socket
from dicom_io.status import means_later, means_stored
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_io.values import Peer, SOPClassUID, TransferSyntaxUID

_MAX_PDU_BYTES = 128 * 1024
# Makes send_c_store(path) send the bytes of the file; pynetdicom offers this only as a switch for the whole process.
_config.STORE_SEND_CHUNKED_DATASET = True
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOutcome:
    """What became of one file: `error` is None when the peer keeps it."""

    path: Path
    error: DicomError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outgoing:
    path: Path
    sop_class_uid: SOPClassUID
    transfer_syntax: TransferSyntaxUID


def echo(peer: Peer, *, calling_ae_title: str, tls: ssl.SSLContext | None = None) -> None:
    """Verify that a peer answers C-ECHO, over TLS where a context is given.

    Raises
    ------
    PeerUnavailable
        No connection, no association or no answer.
    PeerRefused
        The association was rejected, or the status is no success.
    """
    ae = _application_entity(calling_ae_title)
    ae.add_requested_context(Verification)
    with _association(ae, peer, tls) as assoc:
        status = assoc.send_c_echo()
        if "Status" not in status:
            raise PeerUnavailable("The peer did not answer C-ECHO.")
        if status.Status != 0x0000:
            raise PeerRefused(f"C-ECHO was answered 0x{status.Status:04X}.")


def send(
    peer: Peer, paths: Sequence[Path], *, calling_ae_title: str, tls: ssl.SSLContext | None = None
) -> Iterator[StoreOutcome]:
    """Send files over one association, proposing only what is sent; the data sets travel as the bytes on disk.

    Over TLS where a context is given.

    Yields one outcome for each path: first those that cannot be read, then the others in order, each as soon as it is known.
    An association that breaks gives the rest of the files the same error. Warning statuses mean stored.
    """
    outgoing = []
    for path in paths:
        file = _read(path)
        if isinstance(file, DicomError):
            yield StoreOutcome(path=path, error=file)
        else:
            outgoing.append(file)
    if not outgoing:
        return
    ae = _application_entity(calling_ae_title)
    for sop_class, syntax in sorted({(file.sop_class_uid, file.transfer_syntax) for file in outgoing}):
        ae.add_requested_context(sop_class, syntax)
    done = 0
    try:
        with _association(ae, peer, tls) as assoc:
            for file in outgoing:
                outcome = _store(assoc, file)
                done += 1
                yield StoreOutcome(path=file.path, error=outcome)
    except DicomError as error:
        yield from (StoreOutcome(path=file.path, error=error) for file in outgoing[done:])


def _application_entity(ae_title: str) -> AE:
    ae = AE(ae_title=ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = _CONNECT_SECONDS
    ae.acse_timeout = _ANSWER_SECONDS
    ae.dimse_timeout = _ANSWER_SECONDS
    ae.network_timeout = _ANSWER_SECONDS
    return ae


@contextmanager
def _association(ae: AE, peer: Peer, tls: ssl.SSLContext | None) -> Iterator[Association]:
    assoc = ae.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        max_pdu=_MAX_PDU_BYTES,
        evt_handlers=[(evt.EVT_CONN_OPEN, tune_socket)],
        tls_args=(tls, peer.host) if tls is not None else None,
    )
    if assoc.is_rejected:
        primitive = assoc.acceptor.primitive
        words = f"{primitive.result_str}, {primitive.reason_str}" if primitive else "no reason given"
        raise PeerRefused(f"{peer.ae_title} rejected the association: {words}.")
    if not assoc.is_established:
        if assoc.rejected_contexts and not assoc.accepted_contexts:
            raise PeerRefused(f"{peer.ae_title} accepts none of the proposed storage classes and transfer syntaxes.")
        raise PeerUnavailable(f"{peer.ae_title} at {peer.host}:{peer.port} does not answer.")
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def _read(path: Path) -> _Outgoing | DicomError:
    try:
        with any_error_as(PeerRefused, "Our own file cannot be read: {}.", but=(OSError,)):
            meta, _offset = split_dataset(path)
            return _Outgoing(
                path=path,
                sop_class_uid=SOPClassUID(str(meta.MediaStorageSOPClassUID)),
                transfer_syntax=TransferSyntaxUID(str(meta.TransferSyntaxUID)),
            )
    except OSError as error:
        return PeerRefused(f"Our own file cannot be read: {error.strerror}.")
    except PeerRefused as damaged:  # the others must go out
        return damaged


def _store(assoc: Association, file: _Outgoing) -> DicomError | None:
    if not assoc.is_established:
        raise PeerUnavailable("The association broke off.")
    try:
        answer = assoc.send_c_store(file.path)
    except ValueError:
        names = f"{UID(file.sop_class_uid).name} in {UID(file.transfer_syntax).name}"
        return PeerRefused(f"The peer does not accept {names}.")
    except RuntimeError as error:
        raise PeerUnavailable("The association broke off.") from error
    if "Status" not in answer:
        raise PeerUnavailable("The peer did not answer the C-STORE request.")
    status = int(answer.Status)
    if means_stored(status):
        return None
    words = f"C-STORE was answered 0x{status:04X}"
    if comment := str(answer.get("ErrorComment", "")).strip():
        words += f" ({comment})"
    return PeerBusy(f"{words}: out of resources.") if means_later(status) else PeerRefused(f"{words}.")
