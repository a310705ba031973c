"""One association that somebody else opened: its messages one after the other, in one thread (PS3.7 and PS3.8 section 9).

What comes with a C-STORE goes to its sink while it arrives: an object is never in memory.
"""

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from dicom_io.command import NO_DATA_SET, CommandValue, Element, Request, decode_command, encode_command
from dicom_io.errors import NotDicom
from dicom_io.incoming import Incoming, Nothing, Object, Payload
from dicom_io.keeper import Caller, Keeper
from dicom_io.negotiation import MAX_PDU_BYTES, AcceptedContext, Agreement
from dicom_io.normalized import Command, NormalizedRequest, NormalizedService
from dicom_io.part10 import StoreRequest
from dicom_io.status import GeneralStatus, StoreStatus
from dicom_io.values import SOPClassUID, SOPInstanceUID
from dicom_io.wire import AbortReason, Pdu, PeerAborted, ProtocolError, Wire

_IS_COMMAND, _IS_LAST = 1, 2
_RESPONSE = 0x8000
_C_CANCEL = 0x0FFF
_LONGEST_COMMAND_BYTES = 64 * 1024
LONGEST_PDU_BYTES = 128 * MAX_PDU_BYTES
"""Only a fragment of a PDU is in memory at a time: one that is longer than we asked for does no harm. This one is absurd."""
_ERROR_COMMENT_CHARACTERS = 64
_PDV = struct.Struct(">IBB")

Fields = Mapping[Element, CommandValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerers:
    """Who does what is asked."""

    keeper: Keeper
    services: Mapping[str, NormalizedService]
    """By SOP class UID."""
    maximum_object_bytes: int


class Acceptor:
    """An association that was accepted, until it ends."""

    def __init__(self, wire: Wire, agreement: Agreement, caller: Caller, answerers: Answerers) -> None:
        self._wire = wire
        self._contexts = agreement.contexts
        self._caller = caller
        self._answerers = answerers
        self._command = bytearray()
        self._fields: Fields = {}
        self._context_id = 0
        self._incoming: Incoming | None = None

    def serve(self) -> None:
        """Answer what is asked until the peer releases the association or breaks it off.

        Raises
        ------
        ProtocolError, TimeoutError
            It must be aborted.
        PeerAborted, OSError
            The peer is gone.
        """
        try:
            while self._take(*self._wire.next_pdu(patient=self._incoming is None and not self._command)):
                pass
        finally:
            if self._incoming is not None:
                self._incoming.abandon()

    def _take(self, kind: int, length: int) -> bool:
        match kind:
            case Pdu.DATA:
                self._data(length)
                return True
            case Pdu.RELEASE_RQ:
                with suppress(OSError):  # some do not wait for the answer
                    self._wire.exactly(min(length, 4))
                    self._wire.send(struct.pack(">BxI4x", Pdu.RELEASE_RP, 4))
                return False
            case Pdu.ABORT:
                if self._incoming is not None or self._command:
                    raise PeerAborted
                return False
            case Pdu.ASSOCIATE_RQ | Pdu.ASSOCIATE_AC | Pdu.ASSOCIATE_RJ | Pdu.RELEASE_RP:
                raise ProtocolError(AbortReason.UNEXPECTED_PDU)
            case _:
                raise ProtocolError(AbortReason.UNRECOGNIZED_PDU)

    def _data(self, length: int) -> None:
        if length > LONGEST_PDU_BYTES:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, f"a PDU of {length} bytes")
        while length:
            if length < _PDV.size:
                raise ProtocolError(AbortReason.INVALID_PARAMETER)
            item, context_id, control = _PDV.unpack(self._wire.exactly(_PDV.size))
            length -= item + 4
            if item < 2 or length < 0:
                raise ProtocolError(AbortReason.INVALID_PARAMETER)
            self._value(item - 2, context_id, control)

    def _value(self, length: int, context_id: int, control: int) -> None:
        """Take one Presentation Data Value (PS3.8 annex E)."""
        expected = bool(control & _IS_COMMAND) == (self._incoming is None)
        same_context = context_id == self._context_id or not (self._command or self._incoming)
        if context_id not in self._contexts or not expected or not same_context:
            raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER)
        self._context_id = context_id
        if self._incoming is None:
            if len(self._command) + length > _LONGEST_COMMAND_BYTES:
                raise ProtocolError(AbortReason.INVALID_PARAMETER)
            while length:
                fragment = self._wire.some(length)
                length -= len(fragment)
                self._command += fragment
            if control & _IS_LAST:
                self._begin()
            return
        while length:
            fragment = self._wire.some(length)
            length -= len(fragment)
            self._incoming.write(fragment)
        if control & _IS_LAST:
            self._end()

    def _begin(self) -> None:
        try:
            self._fields = decode_command(bytes(self._command))
            operation = int(self._fields[Element.COMMAND_FIELD])
            has_dataset = self._fields[Element.DATA_SET_TYPE] != NO_DATA_SET
        except (NotDicom, KeyError) as error:
            raise ProtocolError(AbortReason.INVALID_PARAMETER) from error
        self._command.clear()
        if operation & _RESPONSE:
            raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER)  # to nothing that we asked
        self._incoming = self._receiver_for(operation)
        if not has_dataset:
            self._end()

    def _receiver_for(self, operation: int) -> Incoming:
        context = self._contexts[self._context_id]
        if operation == Request.C_ECHO:
            return Nothing(StoreStatus.SUCCESS)
        if operation == Request.C_STORE and context.keeps:
            return Object(self._store_request(context), self._answerers.keeper, most_bytes=self._answerers.maximum_object_bytes)
        if operation in set(Command) and context.sop_class_uid in self._answerers.services:
            return Payload(self._normalized(Command(operation), context), self._answerers.services[context.sop_class_uid])
        return Nothing(GeneralStatus.UNRECOGNIZED_OPERATION)

    def _store_request(self, context: AcceptedContext) -> StoreRequest:
        return StoreRequest(
            sop_class_uid=SOPClassUID(str(self._fields.get(Element.AFFECTED_SOP_CLASS_UID, ""))),
            sop_instance_uid=SOPInstanceUID(str(self._fields.get(Element.AFFECTED_SOP_INSTANCE_UID, ""))),
            transfer_syntax=context.transfer_syntax,
            calling_ae_title=self._caller.calling_ae_title,
            called_ae_title=self._caller.called_ae_title,
            peer_address=self._caller.peer_address,
        )

    def _normalized(self, command: Command, context: AcceptedContext) -> NormalizedRequest:
        fields = self._fields
        instance = fields.get(Element.REQUESTED_SOP_INSTANCE_UID) or fields.get(Element.AFFECTED_SOP_INSTANCE_UID) or ""
        type_id = fields.get(Element.EVENT_TYPE_ID if command == Command.N_EVENT_REPORT else Element.ACTION_TYPE_ID)
        return NormalizedRequest(
            command=command,
            sop_class_uid=context.sop_class_uid,
            sop_instance_uid=SOPInstanceUID(str(instance)),
            type_id=None if type_id is None else int(type_id),
            dataset=b"",
            transfer_syntax=context.transfer_syntax,
            calling_ae_title=self._caller.calling_ae_title,
            peer_address=self._caller.peer_address,
        )

    def _end(self) -> None:
        incoming = self._incoming
        if incoming is None:
            return
        status, comment = incoming.finish()
        self._incoming = None
        operation = int(self._fields[Element.COMMAND_FIELD])
        if operation == _C_CANCEL:
            return  # it is not answered (PS3.7 9.3.2.3)
        response: dict[Element, CommandValue] = {
            Element.COMMAND_FIELD: operation | _RESPONSE,
            Element.MESSAGE_ID_BEING_RESPONDED_TO: int(self._fields.get(Element.MESSAGE_ID, 0)),
            Element.DATA_SET_TYPE: NO_DATA_SET,
            Element.STATUS: status,
        }
        for asked, affected in _ECHOED.items():
            if asked in self._fields:
                response[affected] = _ascii(str(self._fields[asked]))
        for element in (Element.EVENT_TYPE_ID, Element.ACTION_TYPE_ID):
            if element in self._fields:
                response[element] = self._fields[element]
        if comment:
            response[Element.ERROR_COMMENT] = _ascii(comment)[:_ERROR_COMMENT_CHARACTERS]
        encoded = encode_command(response)
        pdv = struct.pack(">IBB", len(encoded) + 2, self._context_id, _IS_COMMAND | _IS_LAST)
        self._wire.send(struct.pack(">BxI", Pdu.DATA, len(pdv) + len(encoded)) + pdv + encoded)
        if operation == Request.C_STORE:
            self._answerers.keeper.told()


# Responses name the affected SOP class and instance, requests to change something the requested ones (PS3.7 section 10.3).
_ECHOED = {
    Element.AFFECTED_SOP_CLASS_UID: Element.AFFECTED_SOP_CLASS_UID,
    Element.REQUESTED_SOP_CLASS_UID: Element.AFFECTED_SOP_CLASS_UID,
    Element.AFFECTED_SOP_INSTANCE_UID: Element.AFFECTED_SOP_INSTANCE_UID,
    Element.REQUESTED_SOP_INSTANCE_UID: Element.AFFECTED_SOP_INSTANCE_UID,
}


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
