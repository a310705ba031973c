"""What comes before and beside objects: association requests, command sets, and whole conversations with the acceptor."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from threading import Thread
from typing import Final

from pynetdicom.pdu import A_ASSOCIATE_AC

from dicom_io.acceptor import Acceptor, Answerers
from dicom_io.availability import NOTICE, read_notice
from dicom_io.command import Element, Request, decode_command, encode_command
from dicom_io.commitment import STORAGE_COMMITMENT, read_commitment
from dicom_io.errors import DicomError, NotDicom
from dicom_io.keeper import Caller, StoreAnswer
from dicom_io.mpps import STEP, read_step
from dicom_io.negotiation import VERIFICATION, agree, decode_request, fault_of
from dicom_io.normalized import Command, NormalizedRequest, NormalizedService
from dicom_io.part10 import StoreRequest, file_header, identify
from dicom_io.wire import Patience, ProtocolError, Wire
from tests.fakes import encoded
from tests.fuzz import pdu
from tests.fuzz.pictures import SMALL, objects
from tests.fuzz.target import Broken, Target
from tests.fuzz.told import COMMITMENT, NOTICE_OF_A_STUDY, STEP_OF_A_STUDY

DX: Final = "1.2.840.10008.5.1.4.1.1.1.1"
IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
_DEFLATED, _BIG, _JPEG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.50"
_CONTEXTS: Final = (
    (1, VERIFICATION, [IMPLICIT]),
    (3, DX, [EXPLICIT]),
    (5, DX, [IMPLICIT]),
    (7, STEP, [IMPLICIT]),
    (9, NOTICE, [EXPLICIT]),
    (11, STORAGE_COMMITMENT, [IMPLICIT]),
    (13, DX, [_DEFLATED]),
    (15, DX, [_BIG]),
    (17, DX, [_JPEG]),
)
_MOST_OBJECT_BYTES = 1024 * 1024
_PATIENCE = Patience(stall_seconds=5, idle_seconds=5)


def _associate(data: bytes) -> None:
    proposal = decode_request(data)
    fault_of(proposal)
    agreement = agree(proposal, {STEP, NOTICE, STORAGE_COMMITMENT})
    answer = A_ASSOCIATE_AC()
    answer.decode(agreement.answer)
    if not set(agreement.contexts) <= {2 * place + 1 for place in range(128)}:
        raise Broken("a context number that is none")
    storable(proposal.calling_ae_title, proposal.called_ae_title, most=16)


def storable(*texts: str, most: int = 64) -> None:
    """Refuse what fits into no column of a database."""
    for text in texts:
        if len(text) > most:
            raise Broken("a text longer than its column")
        if not text.isprintable():
            raise Broken("a text with characters that are none")


def _requests() -> list[bytes]:
    many = [(2 * place + 1, f"1.2.840.10008.5.1.4.1.1.{place}", [EXPLICIT, IMPLICIT, _JPEG]) for place in range(20)]
    role = pdu.item(0x54, b"\x00\x14" + STORAGE_COMMITMENT.encode() + b"\x01\x01")
    others = (
        pdu.item(0x55, b"FUZZ_1"),
        pdu.item(0x53, b"\x00\x01\x00\x01"),
        pdu.item(0x56, b"\x00\x11" + VERIFICATION.encode() + b"\x00\x01"),
        pdu.item(0x57, b"\x00\x11" + VERIFICATION.encode() + b"\x00\x11" + VERIFICATION.encode() + b"\x00\x00"),
        pdu.item(0x58, b"\x02\x00\x00\x04name\x00\x06secret"),
    )
    return [
        pdu.associate_rq(_CONTEXTS),
        pdu.associate_rq(many, role, *others),
        pdu.associate_rq([(1, VERIFICATION, [])]),
        pdu.associate_rq([]),
    ]


def _hostile_requests() -> Iterator[tuple[str, bytes]]:
    syntaxes = [f"1.2.840.10008.1.2.4.{place}" for place in range(75)]
    contexts = [(2 * place + 1, f"1.2.840.10008.5.1.4.1.1.{place}", syntaxes) for place in range(128)]
    yield "256 KiB of transfer syntaxes", pdu.associate_rq(contexts)
    yield "one context 4,000 times", pdu.associate_rq([(1, DX, [EXPLICIT])] * 4000)
    yield "4,000 sub-items", pdu.associate_rq([(1, DX, [EXPLICIT])], *[pdu.item(0x55, b"A" * 12)] * 4000)
    yield "items of no length", pdu.associate_rq([(1, DX, [EXPLICIT])], bytes(60000))


ASSOCIATION = Target(
    name="association",
    says="Association requests: `negotiation.decode_request`, `fault_of` and `agree`; the answer must be an A-ASSOCIATE-AC.",
    run=_associate,
    allowed=(NotDicom,),
    seeds=_requests,
    hostile=_hostile_requests,
)


def _command(data: bytes) -> None:
    command = decode_command(data)
    again = encode_command({key: value for key, value in command.items() if not isinstance(value, str) or value.isascii()})
    if not set(decode_command(again).items()) <= set(command.items()):
        raise Broken("it is read otherwise when it is written again")


def _commands() -> list[bytes]:
    return [
        encode_command({Element.AFFECTED_SOP_CLASS_UID: VERIFICATION, Element.COMMAND_FIELD: Request.C_ECHO}),
        encode_command({element: 1 if "FIELD" in element.name or "ID" in element.name[-3:] else "1.2" for element in Element}),
    ]


COMMAND = Target(
    name="command",
    says="Command sets: `command.decode_command`; what is written again must be read as the same.",
    run=_command,
    allowed=(NotDicom,),
    seeds=_commands,
    hostile=lambda: iter(
        [("8,000 empty elements", bytes(64000)), ("64 KiB of text", encode_command({Element.ERROR_COMMENT: "A" * 65000}))]
    ),
    longest=2048,
)


class _Keeper:
    """Keeps nothing, yet looks at everything as the worker's own does."""

    def __init__(self) -> None:
        self.broken: BaseException | None = None

    def open(self, request: StoreRequest) -> "_Sink":
        file_header(request, receiver="CXRWORKER")
        return _Sink(request)

    def answered(self, _request: StoreRequest, answer: StoreAnswer) -> None:
        if answer.error is not None and not isinstance(answer.error, DicomError):
            self.broken = answer.error

    def told(self) -> None:
        pass

    def accepted(self, caller: Caller) -> None:
        pass

    def closed(self, caller: Caller) -> None:
        pass

    def rejected(self, caller: Caller, reason: str, words: str) -> None:
        pass

    def aborted(self, caller: Caller, reason: str, words: str) -> None:
        pass

    def heard(self, service: NormalizedService) -> NormalizedService:
        """Note what a service raises that is not one of our errors, and raise it on."""

        def watched(request: NormalizedRequest) -> None:
            try:
                service(request)
            except DicomError:
                raise
            except Exception as error:
                self.broken = error
                raise

        return watched


class _Sink:
    def __init__(self, request: StoreRequest) -> None:
        self._request = request
        self._dataset = BytesIO()
        self._ended = False

    def write(self, fragment: memoryview) -> None:
        self._dataset.write(fragment)

    def finish(self) -> None:
        self._end()
        self._dataset.seek(0)
        identify(self._request, self._dataset)

    def abandon(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._ended:
            raise Broken("a sink was ended twice")
        self._ended = True


def _converse(data: bytes) -> None:
    keeper = _Keeper()
    services = {
        STEP: keeper.heard(lambda request: (read_step(request.dataset, request.transfer_syntax), None)[1]),
        NOTICE: keeper.heard(lambda request: (read_notice(request.dataset, request.transfer_syntax), None)[1]),
        STORAGE_COMMITMENT: keeper.heard(lambda request: (read_commitment(request.dataset, request.transfer_syntax), None)[1]),
    }
    agreement = agree(decode_request(pdu.associate_rq(_CONTEXTS)), services.keys())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = Thread(target=_talk, args=(theirs, data), daemon=True)
        peer.start()
        answerers = Answerers(keeper=keeper, services=services, maximum_object_bytes=_MOST_OBJECT_BYTES)
        try:
            Acceptor(Wire(ours, _PATIENCE), agreement, Caller(calling_ae_title="FUZZ", peer_address="::1"), answerers).serve()
        finally:
            ours.close()
            peer.join()
            if keeper.broken is not None:
                raise keeper.broken


def _talk(connection: socket.socket, data: bytes) -> None:
    """Say everything, then listen to the end."""
    with suppress(OSError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def _conversations() -> list[bytes]:
    echo = pdu.message(
        1, {Element.AFFECTED_SOP_CLASS_UID: VERIFICATION, Element.COMMAND_FIELD: Request.C_ECHO, Element.MESSAGE_ID: 1}
    )
    stores = []
    numbers = {EXPLICIT: 3, IMPLICIT: 5, _DEFLATED: 13, _BIG: 15, _JPEG: 17}
    for ds in objects(*SMALL):
        if (number := numbers.get(str(ds.file_meta.TransferSyntaxUID))) in {3, 5, 17}:
            command = {
                Element.AFFECTED_SOP_CLASS_UID: str(ds.SOPClassUID),
                Element.AFFECTED_SOP_INSTANCE_UID: str(ds.SOPInstanceUID),
                Element.COMMAND_FIELD: int(Request.C_STORE),
                Element.MESSAGE_ID: 2,
            }
            stores.append(pdu.message(number, command, encoded(ds)[:1400]))
    told = [
        pdu.message(
            number,
            {affected: sop_class, instance: "1.2.3", Element.COMMAND_FIELD: command, Element.MESSAGE_ID: 3, **more},
            dataset,
        )
        for number, sop_class, command, dataset, more, affected, instance in (
            (7, STEP, Command.N_CREATE, STEP_OF_A_STUDY, {}, *_AFFECTED),
            (7, STEP, Command.N_SET, STEP_OF_A_STUDY, {}, Element.REQUESTED_SOP_CLASS_UID, Element.REQUESTED_SOP_INSTANCE_UID),
            (9, NOTICE, Command.N_CREATE, NOTICE_OF_A_STUDY, {}, *_AFFECTED),
            (11, STORAGE_COMMITMENT, Command.N_EVENT_REPORT, COMMITMENT, {Element.EVENT_TYPE_ID: 1}, *_AFFECTED),
        )
    ]
    return [echo + pdu.RELEASE_RQ, stores[0] + echo, *stores, *told, b"".join([echo, *stores[:2], *told, pdu.RELEASE_RQ])]


_AFFECTED = Element.AFFECTED_SOP_CLASS_UID, Element.AFFECTED_SOP_INSTANCE_UID


def _hostile_conversations() -> Iterator[tuple[str, bytes]]:
    yield "100,000 empty values", pdu.data_pdu(1, 1, b"") * 100_000
    long = "9" * 64000
    command = {Element.COMMAND_FIELD: int(Request.C_STORE), Element.MESSAGE_ID: 1, Element.AFFECTED_SOP_CLASS_UID: long}
    yield "a class UID of 64,000 characters", pdu.message(3, command, b"\x08\x00")
    strange = pdu.message(3, command, b"\x08\x00").replace(b"9" * 64000, b"\xff" * 64000)
    yield "a class UID of 64,000 characters that are none", strange
    begun = pdu.message(3, command, b"\0").removesuffix(pdu.data_pdu(3, pdu.IS_LAST, b"\0"))
    yield "an object of 64 MB where 1 MB is taken", begun + pdu.data_pdu(3, 0, bytes(1024 * 1024 - 6)) * 64


CONVERSATION = Target(
    name="conversation",
    says=(
        "Whole conversations after a valid handshake: `Acceptor.serve` over a socket pair, objects identified and services' "
        "data sets read as the worker does; an error of theirs that is none of ours is a finding too."
    ),
    run=_converse,
    allowed=(ProtocolError, OSError),
    seeds=_conversations,
    hostile=_hostile_conversations,
)
