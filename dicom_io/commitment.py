"""Storage commitment, push model: asking a peer to vouch for what it was sent, and reading its answer (PS3.4 annex J)."""

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from dicom_io.bounded import value_of
from dicom_io.command import Element, Request
from dicom_io.errors import InvalidObject, NotDicom, ObjectRefused, PeerRefused, PeerUnavailable, Retryable
from dicom_io.foreign import any_error_as
from dicom_io.payload import decode_payload, encode_payload, items_of, uid_of
from dicom_io.proposal import Context
from dicom_io.requestor import Association, Command, Message, associate
from dicom_io.values import Peer, SOPClassUID, SOPInstanceUID, TransferSyntaxUID

STORAGE_COMMITMENT: Final = SOPClassUID("1.2.840.10008.1.20.1")
_WELL_KNOWN_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
_CONTEXT: Final[Context] = (STORAGE_COMMITMENT, TransferSyntaxUID(ImplicitVRLittleEndian))
WAIT_SECONDS = 1.0
"""How long to wait for an answer on the association of the request: it holds up what is sent next, and may come on another."""
_ASK = 1
"""The action type of a request (PS3.4 table J.3-1)."""
_REASONS: Final[Mapping[int, str]] = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0119: "class and instance do not belong together",
    0x0122: "SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}
"""Failure Reason in words (PS3.3 C.14.1.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """What a peer answered: for which objects it vouches, and for which it does not, with the reason in words."""

    transaction_uid: str
    committed: frozenset[SOPInstanceUID]
    failed: Mapping[SOPInstanceUID, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """What a peer is asked to vouch for."""

    transaction_uid: str
    objects: Sequence[tuple[SOPClassUID, SOPInstanceUID]]


def ask_to_commit(
    peer: Peer,
    request: CommitmentRequest,
    *,
    calling_ae_title: str,
    settle: Callable[[Commitment], None],
    tls: ssl.SSLContext | None = None,
) -> bool:
    """Ask a peer to vouch for objects; answer whether it did so on this association, else it will on one of its own.

    Parameters
    ----------
    settle
        Makes an answer durable. The peer is told of success when it returns, of a failure when it raises. After
        `InvalidObject`, as of a transaction that nobody began, another answer is waited for.

    Raises
    ------
    PeerUnavailable
        No association, no answer, or it broke off.
    PeerRefused
        We are not let in, or the peer refuses to be asked.
    ObjectRefused
        It does not offer storage commitment.
    """
    command: Command = {
        Element.REQUESTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
        Element.COMMAND_FIELD: Request.N_ACTION,
        Element.REQUESTED_SOP_INSTANCE_UID: _WELL_KNOWN_INSTANCE,
        Element.ACTION_TYPE_ID: _ASK,
    }
    try:
        with associate(peer, [_CONTEXT], calling_ae_title=calling_ae_title, tls=tls) as association:
            status = association.ask(_CONTEXT, command, _encoded(request)).command.get(Element.STATUS)
            if status != 0x0000:
                raise PeerRefused(f"Storage commitment was refused with 0x{int(status or 0):04X}.")
            until = monotonic() + WAIT_SECONDS
            while (event := _next_event(association, until)) is not None:
                if _settle(association, event, settle):
                    return True
    except ObjectRefused as error:
        raise ObjectRefused(f"{peer.ae_title} does not offer storage commitment.") from error
    return False


def read_commitment(encoded: bytes, transfer_syntax: str) -> Commitment:
    """Read the data set of an N-EVENT-REPORT (PS3.4 table J.3-2).

    Raises
    ------
    NotDicom, InvalidObject
        It is no data set, or names no transaction.
    """
    with any_error_as(NotDicom, "A storage commitment result cannot be read: {}.", but=(InvalidObject,)):
        ds = decode_payload(encoded, transfer_syntax)
        transaction = uid_of(ds, "TransactionUID")
        if not transaction:
            raise InvalidObject("A storage commitment result names no transaction.")
        return Commitment(
            transaction_uid=transaction,
            committed=frozenset(_instance(item) for item in items_of(ds, "ReferencedSOPSequence")),
            failed={_instance(item): _reason(item) for item in items_of(ds, "FailedSOPSequence")},
        )


def _next_event(association: Association, until: float) -> Message | None:
    try:
        return association.next_request(seconds=max(0.0, until - monotonic()))
    except PeerUnavailable:  # it was asked; some close the association then, and answer on another
        return None


def _settle(association: Association, event: Message, settle: Callable[[Commitment], None]) -> bool:
    """Take an answer; whether it was one to what we asked, now or earlier."""
    status = 0x0110
    try:
        if event.command.get(Element.COMMAND_FIELD) == Request.N_EVENT_REPORT:
            settle(read_commitment(event.dataset, ImplicitVRLittleEndian))
            status = 0x0000
    except InvalidObject:  # the right one may come behind it
        status = 0x0106
    except Retryable:
        status = 0x0213
        raise
    finally:
        association.answer(
            event,
            {
                Element.AFFECTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
                Element.AFFECTED_SOP_INSTANCE_UID: _WELL_KNOWN_INSTANCE,
                Element.EVENT_TYPE_ID: event.command.get(Element.EVENT_TYPE_ID, 0),
                Element.STATUS: status,
            },
        )
    return status == 0x0000


def _encoded(request: CommitmentRequest) -> bytes:
    ds = Dataset()
    ds.TransactionUID = request.transaction_uid
    ds.ReferencedSOPSequence = []
    for sop_class, sop_instance in request.objects:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = sop_instance
        ds.ReferencedSOPSequence.append(item)
    return encode_payload(ds)


def _instance(item: Dataset) -> SOPInstanceUID:
    return SOPInstanceUID(uid_of(item, "ReferencedSOPInstanceUID"))


def _reason(item: Dataset) -> str:
    code = int(value_of(item, "FailureReason") or 0)
    return f"{_REASONS.get(code, 'failure')} (0x{code:04X})"
