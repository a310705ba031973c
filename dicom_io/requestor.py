"""An association that we open: one blocking connection and one message at a time, in the caller's thread (PS3.7, PS3.8).

pynetdicom's classes read and write the negotiation. Its own association has two threads that look for work every so often,
which costs some milliseconds an object, and it says nothing of what is wrong with TLS.
"""

import ssl
import struct
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic

from dicom_io.command import NO_DATA_SET, CommandValue, Element, decode_command, encode_command
from dicom_io.connection import LONGEST_PDU_BYTES, Connection, connect, in_words
from dicom_io.errors import (
    AssociationRejected,
    DicomError,
    NotDicom,
    ObjectRefused,
    PeerRefused,
    PeerUnavailable,
    PeerUnreachable,
)
from dicom_io.foreign import any_error_as
from dicom_io.negotiation import MAX_PDU_BYTES
from dicom_io.proposal import Context, decode_acceptance, decode_rejection, encode_proposal
from dicom_io.values import Peer
from dicom_io.wire import Pdu

ANSWER_SECONDS = 30.0
_RELEASE_SECONDS = 5.0
_MOST_REQUESTS = 64
"""Of the peer, that are kept until what we asked is answered."""
_IS_COMMAND, _IS_LAST = 1, 2

Command = Mapping[Element, CommandValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A DIMSE message that the peer sent."""

    context_id: int
    command: Command
    dataset: bytes
    """Empty where there is none."""

    @property
    def is_response(self) -> bool:
        """Whether it answers a request of ours."""
        return bool(int(self.command.get(Element.COMMAND_FIELD, 0)) & 0x8000)


@contextmanager
def associate(
    peer: Peer, contexts: Sequence[Context], *, calling_ae_title: str, tls: ssl.SSLContext | None = None
) -> Iterator["Association"]:
    """Open an association, released when the context is left.

    Parameters
    ----------
    contexts
        What is proposed, each with one transfer syntax; at most 128.
    tls
        Where given, everything goes over TLS.

    Raises
    ------
    PeerUnreachable
        No connection, or no answer.
    AssociationRejected
        We are not let in: by the peer, or because a certificate does not do.
    ObjectRefused
        None of the contexts was accepted: the peer does not know them.
    PeerRefused
        None was accepted, for another reason.
    """
    with connect(peer, tls) as connection:
        association = Association(connection)
        with in_words(connection.where, PeerUnreachable):
            association.negotiate(peer.ae_title, contexts, calling_ae_title=calling_ae_title)
        try:
            yield association
        except DicomError:
            association.abort()
            raise
        association.release()


class Association:
    """An open association; `associate` makes it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._where = connection.where
        self._accepted: Mapping[Context, int] = {}
        self._not_now: Collection[Context] = ()
        self._fragment_bytes = MAX_PDU_BYTES
        self._message_id = 0
        self._arrived: deque[Message] = deque()
        self._open = True

    def negotiate(self, called_ae_title: str, contexts: Sequence[Context], *, calling_ae_title: str) -> None:
        """Ask for the association and read what was accepted."""
        self._connection.send(encode_proposal(called_ae_title, contexts, calling_ae_title=calling_ae_title))
        kind, pdu = self._connection.receive_pdu(monotonic() + ANSWER_SECONDS)
        if kind not in {Pdu.ASSOCIATE_AC, Pdu.ASSOCIATE_RJ}:
            words = "aborted the association" if kind == Pdu.ABORT else "does not answer as a DICOM node"
            raise PeerUnreachable(f"{self._where} {words}.")
        with any_error_as(PeerUnreachable, f"{self._where} does not answer as a DICOM node: {{}}.", but=(AssociationRejected,)):
            if kind == Pdu.ASSOCIATE_RJ:
                raise AssociationRejected(f"{called_ae_title} rejected the association: {decode_rejection(pdu)}.")
            acceptance = decode_acceptance(pdu, contexts)
        self._accepted, self._not_now = acceptance.contexts, acceptance.not_now
        self._fragment_bytes = max(min(acceptance.maximum_pdu_bytes or MAX_PDU_BYTES, MAX_PDU_BYTES) - 6, 2) & ~1
        if not self._accepted:
            self.release()
            words = f"{called_ae_title} accepts none of what is proposed"
            if any(map(self.may_accept_later, contexts)):
                raise PeerRefused(f"{words}, and does not say why.")
            raise ObjectRefused(f"{words}: it knows no such SOP class, or not in these transfer syntaxes.")

    def accepts(self, context: Context) -> bool:
        """Whether messages of this SOP class may be sent in this transfer syntax."""
        return context in self._accepted

    def may_accept_later(self, context: Context) -> bool:
        """Whether it was refused for another reason than that the peer does not know it."""
        return context in self._not_now

    def ask(self, context: Context, command: Command, dataset: bytes = b"") -> Message:
        """Send a request and wait for its response; requests of the peer that come first are kept for `next_request`.

        Raises
        ------
        PeerUnavailable
            No answer, or the association broke off.
        """
        with in_words(self._where):
            self._message_id = self._message_id % 0xFFFF + 1
            self._send_message(self._accepted[context], {**command, Element.MESSAGE_ID: self._message_id}, dataset)
            deadline = monotonic() + ANSWER_SECONDS
            while True:
                message = self._receive_message(deadline)
                if not message.is_response:
                    self._arrived.append(message)
                    if len(self._arrived) > _MOST_REQUESTS:
                        raise PeerUnavailable(f"{self._where} sends requests without end.")
                elif message.command.get(Element.MESSAGE_ID_BEING_RESPONDED_TO) == self._message_id:
                    return message

    def next_request(self, *, seconds: float) -> Message | None:
        """Wait for a request of the peer; None where none came in time."""
        if self._arrived:
            return self._arrived.popleft()
        with in_words(self._where):
            try:
                return self._receive_message(monotonic() + seconds)
            except TimeoutError:
                return None

    def answer(self, request: Message, command: Command) -> None:
        """Respond to a request of the peer.

        Raises
        ------
        PeerUnavailable
            It cannot be answered, for it lacks what every request has; or the association broke off.
        """
        operation, message_id = request.command.get(Element.COMMAND_FIELD), request.command.get(Element.MESSAGE_ID)
        if operation is None or message_id is None:
            raise PeerUnavailable(f"{self._where} sends a request that cannot be answered.")
        response = {
            **command,
            Element.COMMAND_FIELD: int(operation) | 0x8000,
            Element.MESSAGE_ID_BEING_RESPONDED_TO: message_id,
        }
        with in_words(self._where):
            self._send_message(request.context_id, response)

    def release(self) -> None:
        """End it in order; what does not answer in time is left."""
        if not self._open:
            return
        self._open = False
        with suppress(OSError, DicomError):
            self._connection.send(struct.pack(">BxI4x", Pdu.RELEASE_RQ, 4))
            deadline = monotonic() + min(_RELEASE_SECONDS, ANSWER_SECONDS)
            while self._connection.receive_pdu(deadline)[0] != Pdu.RELEASE_RP:
                pass

    def abort(self) -> None:
        """Break it off."""
        if self._open:
            self._open = False
            with suppress(OSError):
                self._connection.send(struct.pack(">BxI4x", Pdu.ABORT, 4))

    def _send_message(self, context_id: int, command: Command, dataset: bytes = b"") -> None:
        kind = 0x0000 if dataset else NO_DATA_SET
        pending = self._pdu(context_id, encode_command({**command, Element.DATA_SET_TYPE: kind}), _IS_COMMAND | _IS_LAST)
        for at in range(0, len(dataset), self._fragment_bytes):
            fragment = dataset[at : at + self._fragment_bytes]
            is_last = at + self._fragment_bytes >= len(dataset)
            self._connection.send(pending + self._pdu(context_id, fragment, _IS_LAST if is_last else 0))
            pending = b""
        if pending:
            self._connection.send(pending)

    @staticmethod
    def _pdu(context_id: int, fragment: bytes, control: int) -> bytes:
        return struct.pack(">BxIIBB", Pdu.DATA, len(fragment) + 6, len(fragment) + 2, context_id, control) + fragment

    def _receive_message(self, deadline: float) -> Message:
        parts: dict[int, bytearray] = {_IS_COMMAND: bytearray(), 0: bytearray()}
        command: Command | None = None
        while True:
            for context_id, control, fragment in self._receive_fragments(deadline):
                parts[control & _IS_COMMAND] += fragment
                if len(parts[control & _IS_COMMAND]) > LONGEST_PDU_BYTES:
                    raise PeerUnavailable(f"{self._where} sends a message without end.")
                if not control & _IS_LAST:
                    continue
                if control & _IS_COMMAND:
                    command = self._decoded(bytes(parts[_IS_COMMAND]))
                if command is None:
                    raise PeerUnavailable(f"{self._where} sends a data set without a command.")
                if not control & _IS_COMMAND or command.get(Element.DATA_SET_TYPE) == NO_DATA_SET:
                    return Message(context_id=context_id, command=command, dataset=bytes(parts[0]))

    def _decoded(self, encoded: bytes) -> Command:
        try:
            return decode_command(encoded)
        except NotDicom as error:
            raise PeerUnavailable(f"{self._where} sends what is no message.") from error

    def _receive_fragments(self, deadline: float) -> Iterator[tuple[int, int, bytes]]:
        kind, pdu = self._connection.receive_pdu(deadline)
        if kind == Pdu.ABORT:
            raise PeerUnavailable("The association broke off: the peer aborted it.")
        if kind == Pdu.RELEASE_RQ:
            self._open = False
            self._connection.send(struct.pack(">BxI4x", Pdu.RELEASE_RP, 4))
            raise PeerUnavailable("The association broke off: the peer released it.")
        if kind != Pdu.DATA:
            raise PeerUnavailable(f"{self._where} sends what does not belong here.")
        at = 6
        while at + 6 <= len(pdu):
            length, context_id, control = struct.unpack_from(">IBB", pdu, at)
            yield context_id, control, pdu[at + 6 : at + 4 + length]
            at += 4 + max(length, 2)
