"""The sending end: C-ECHO, and C-STORE of files as they lie on disk (PS3.4 annexes A and B)."""

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset

from dicom_io.command import Element, Request
from dicom_io.errors import DicomError, ObjectRefused, PeerBusy, PeerRefused, PeerUnavailable
from dicom_io.foreign import any_error_as
from dicom_io.proposal import Context
from dicom_io.requestor import Association, Command, Message, associate
from dicom_io.status import means_later, means_never, means_stored
from dicom_io.values import Peer, SOPClassUID, SOPInstanceUID, TransferSyntaxUID

_VERIFICATION: Context = (SOPClassUID("1.2.840.10008.1.1"), TransferSyntaxUID(ImplicitVRLittleEndian))
_MEDIUM = 0x0000
"""The priority of C-STORE (PS3.7 table E.1-1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOutcome:
    """What became of one file: `error` is None when the peer keeps it."""

    path: Path
    error: DicomError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outgoing:
    path: Path
    context: Context
    sop_instance_uid: SOPInstanceUID
    dataset_offset: int


def echo(peer: Peer, *, calling_ae_title: str, tls: ssl.SSLContext | None = None) -> None:
    """Verify that a peer answers C-ECHO, over TLS where a context is given.

    Raises
    ------
    PeerUnavailable
        No connection, no association or no answer.
    PeerRefused
        The association was rejected, or the status is no success.
    """
    command: Command = {Element.AFFECTED_SOP_CLASS_UID: _VERIFICATION[0], Element.COMMAND_FIELD: Request.C_ECHO}
    with associate(peer, [_VERIFICATION], calling_ae_title=calling_ae_title, tls=tls) as association:
        status = _status_of(association.ask(_VERIFICATION, command))
    if status != 0x0000:
        raise PeerRefused(f"C-ECHO was answered 0x{status:04X}.")


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
    contexts = sorted({file.context for file in outgoing})
    done = 0
    try:
        with associate(peer, contexts, calling_ae_title=calling_ae_title, tls=tls) as association:
            for file in outgoing:
                outcome = _store(association, file)
                done += 1
                yield StoreOutcome(path=file.path, error=outcome)
    except DicomError as error:
        yield from (StoreOutcome(path=file.path, error=error) for file in outgoing[done:])


def _read(path: Path) -> _Outgoing | DicomError:
    try:
        with any_error_as(PeerRefused, "Our own file cannot be read: {}.", but=(OSError,)):
            meta, offset = split_dataset(path)
            return _Outgoing(
                path=path,
                context=(SOPClassUID(str(meta.MediaStorageSOPClassUID)), TransferSyntaxUID(str(meta.TransferSyntaxUID))),
                sop_instance_uid=SOPInstanceUID(str(meta.MediaStorageSOPInstanceUID)),
                dataset_offset=offset,
            )
    except OSError as error:
        return PeerRefused(f"Our own file cannot be read: {error.strerror}.")
    except PeerRefused as damaged:  # the others must go out
        return damaged


def _store(association: Association, file: _Outgoing) -> DicomError | None:
    sop_class, syntax = file.context
    if not association.accepts(file.context):
        return ObjectRefused(f"The peer does not accept {UID(sop_class).name} in {UID(syntax).name}.")
    try:
        dataset = file.path.read_bytes()[file.dataset_offset :]
    except OSError as error:
        return PeerRefused(f"Our own file cannot be read: {error.strerror}.")
    command: Command = {
        Element.AFFECTED_SOP_CLASS_UID: sop_class,
        Element.COMMAND_FIELD: Request.C_STORE,
        Element.PRIORITY: _MEDIUM,
        Element.AFFECTED_SOP_INSTANCE_UID: file.sop_instance_uid,
    }
    answer = association.ask(file.context, command, dataset)
    status = _status_of(answer)
    if means_stored(status):
        return None
    words = f"C-STORE was answered 0x{status:04X}"
    if means_later(status):
        refusal: DicomError = PeerBusy(f"{words}: out of resources.")
    else:
        refusal = (ObjectRefused if means_never(status) else PeerRefused)(f"{words}.")
    refusal.comment = str(answer.command.get(Element.ERROR_COMMENT, ""))
    return refusal


def _status_of(answer: Message) -> int:
    status = answer.command.get(Element.STATUS)
    if not isinstance(status, int):
        raise PeerUnavailable("The peer answered without a status.")
    return status
