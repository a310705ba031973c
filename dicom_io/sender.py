"""The sending end: C-ECHO, and C-STORE of files, as they lie on disk wherever the peer takes that (PS3.4 annexes A and B)."""

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset

from dicom_io.command import Element, Request
from dicom_io.errors import DicomError, ObjectRefused, PeerBusy, PeerRefused, PeerUnavailable
from dicom_io.foreign import any_error_as
from dicom_io.implicit import to_implicit
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
    sop_instance_uid: SOPInstanceUID
    contexts: tuple[Context, ...]
    """In which it may go, as it lies on disk before all others."""
    dataset_offset: int


def echo(peer: Peer, *, calling_ae_title: str, tls: ssl.SSLContext | None = None) -> None:
    """Verify that a peer answers C-ECHO, over TLS where a context is given.

    Raises
    ------
    PeerUnavailable
        No connection, no association or no answer.
    PeerRefused
        The association was rejected, or the status is no success.
    ObjectRefused
        It can be talked to, and does not offer C-ECHO.
    """
    command: Command = {Element.AFFECTED_SOP_CLASS_UID: _VERIFICATION[0], Element.COMMAND_FIELD: Request.C_ECHO}
    try:
        with associate(peer, [_VERIFICATION], calling_ae_title=calling_ae_title, tls=tls) as association:
            status = _status_of(association.ask(_VERIFICATION, command))
    except ObjectRefused as error:
        raise ObjectRefused(f"{peer.ae_title} answers, but does not offer C-ECHO (the Verification SOP Class).") from error
    if status != 0x0000:
        raise PeerRefused(f"C-ECHO was answered 0x{status:04X}.")


def whatever_comes(_path: Path) -> bool:
    """Nothing is taken back while it waits for its turn."""
    return True


def send(
    peer: Peer,
    paths: Sequence[Path],
    *,
    calling_ae_title: str,
    tls: ssl.SSLContext | None = None,
    is_wanted: Callable[[Path], bool] = whatever_comes,
) -> Iterator[StoreOutcome]:
    """Send files over one association, over TLS where a context is given, proposing only what is sent.

    The data sets travel as the bytes on disk. What lies there in Explicit VR Little Endian goes in Implicit VR Little Endian,
    with the same values, where the peer takes only that; what is compressed goes as it is or not at all.

    Yields one outcome for each path: first those that cannot be read, then the others in order, each as soon as it is known.
    An association that breaks gives the rest of the files the same error. Warning statuses mean stored. `is_wanted` is asked
    when a file's turn comes: one that was taken back since is passed over, and yields nothing.
    """
    outgoing = []
    for path in paths:
        try:
            outgoing.append(_read(path))
        except PeerRefused as damaged:  # the others must go out
            yield StoreOutcome(path=path, error=damaged)
    if not outgoing:
        return
    contexts = sorted({context for file in outgoing for context in file.contexts})
    done = 0
    try:
        with associate(peer, contexts, calling_ae_title=calling_ae_title, tls=tls) as association:
            for file in outgoing:
                outcome = StoreOutcome(path=file.path, error=_store(association, file)) if is_wanted(file.path) else None
                done += 1
                if outcome is not None:
                    yield outcome
    except ObjectRefused:
        yield from (StoreOutcome(path=file.path, error=_not_taken(file)) for file in outgoing[done:])
    except DicomError as error:
        yield from (StoreOutcome(path=file.path, error=error) for file in outgoing[done:])


def _read(path: Path) -> _Outgoing:
    with our_files_troubles_named():
        meta, offset = split_dataset(path)
        sop_class, syntax = SOPClassUID(str(meta.MediaStorageSOPClassUID)), TransferSyntaxUID(str(meta.TransferSyntaxUID))
        return _Outgoing(
            path=path,
            sop_instance_uid=SOPInstanceUID(str(meta.MediaStorageSOPInstanceUID)),
            contexts=_contexts(sop_class, syntax),
            dataset_offset=offset,
        )


def _encoded(file: _Outgoing, context: Context) -> bytes:
    with our_files_troubles_named():
        dataset = file.path.read_bytes()[file.dataset_offset :]
        return dataset if context == file.contexts[0] else to_implicit(dataset)


@contextmanager
def our_files_troubles_named() -> Iterator[None]:
    """Raise `PeerRefused` where a file of ours cannot be read."""
    try:
        with any_error_as(PeerRefused, "Our own file cannot be read: {}.", but=(OSError,)):
            yield
    except OSError as error:
        raise PeerRefused(f"Our own file cannot be read: {error.strerror}.") from error
    except MemoryError as error:
        raise PeerRefused("Our own file cannot be read: there is no memory for it.") from error


def _contexts(sop_class: SOPClassUID, syntax: TransferSyntaxUID) -> tuple[Context, ...]:
    """Every peer must take the default transfer syntax, so it is offered for all that can be told in it (PS3.5 section 10.1).

    Each in a context of its own: with both in one, the peer would choose, and might choose the one that is not on disk.
    """
    if syntax == TransferSyntaxUID(ExplicitVRLittleEndian):
        return (sop_class, syntax), (sop_class, TransferSyntaxUID(ImplicitVRLittleEndian))
    return ((sop_class, syntax),)


def _not_taken(file: _Outgoing) -> ObjectRefused:
    sop_class, syntax = (UID(each).name for each in file.contexts[0])
    words = f"The peer does not accept {sop_class} in {syntax}"
    if len(file.contexts) > 1:
        return ObjectRefused(f"{words}, nor in Implicit VR Little Endian.")
    return ObjectRefused(f"{words}, and it is sent in no other transfer syntax than its own.")


def _store(association: Association, file: _Outgoing) -> DicomError | None:
    context = next(filter(association.accepts, file.contexts), None)
    if context is None:
        refused = _not_taken(file)
        return PeerRefused(str(refused)) if any(map(association.may_accept_later, file.contexts)) else refused
    try:
        dataset = _encoded(file, context)
    except PeerRefused as damaged:
        return damaged
    command: Command = {
        Element.AFFECTED_SOP_CLASS_UID: context[0],
        Element.COMMAND_FIELD: Request.C_STORE,
        Element.PRIORITY: _MEDIUM,
        Element.AFFECTED_SOP_INSTANCE_UID: file.sop_instance_uid,
    }
    answer = association.ask(context, command, dataset)
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
