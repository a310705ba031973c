"""An association that we open, with peers that keep to the protocol as they like: each is a script behind a real socket."""

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from unittest.mock import Mock

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io import requestor
from dicom_io.command import NO_DATA_SET, CommandValue, Element, Request, decode_command, encode_command
from dicom_io.commitment import STORAGE_COMMITMENT, Commitment, CommitmentRequest, ask_to_commit
from dicom_io.errors import InvalidObject, ObjectRefused, PeerRefused, PeerUnavailable, PeerUnreachable
from dicom_io.negotiation import MAX_PDU_BYTES, agree, decode_request
from dicom_io.payload import encode_payload
from dicom_io.proposal import Context
from dicom_io.requestor import Association, associate
from dicom_io.sender import send
from dicom_io.values import Peer, SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from dicom_io.wire import Pdu
from tests.factories import make_dx, write

CONTEXT: Context = (SOPClassUID("1.2.840.10008.5.1.4.1.1.1"), TransferSyntaxUID(ExplicitVRLittleEndian))
ANOTHER: Context = (CONTEXT[0], TransferSyntaxUID(ImplicitVRLittleEndian))
STORE: Mapping[Element, CommandValue] = {Element.COMMAND_FIELD: Request.C_STORE, Element.AFFECTED_SOP_INSTANCE_UID: "1.2.3"}


class Node:
    """The peer's side of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard: list[tuple[int, bytes]] = []
        """PDUs after the association request: their type, and what follows their length."""

    def pdu(self) -> int:
        """Read a PDU; answer its type."""
        kind, length = struct.unpack(">BxI", self._exactly(6))
        self.heard.append((kind, self._exactly(length)))
        return int(kind)

    def accept(self, *, changed: Callable[[bytes], bytes] = lambda answer: answer) -> None:
        """Answer the association request, as our own acceptor would, or with a change."""
        self.pdu()
        kind, body = self.heard.pop()
        encoded = struct.pack(">BxI", kind, len(body)) + body
        self.connection.sendall(changed(agree(decode_request(encoded), {STORAGE_COMMITMENT}).answer))

    def message(self) -> bytes:
        """Read a request with its data set; answer the data set."""
        dataset = b""
        while self.pdu() == Pdu.DATA:
            for control, fragment in self.fragments(-1):
                dataset += b"" if control & 1 else fragment
                if control == 2:
                    return dataset
        return dataset

    def fragments(self, place: int) -> Iterator[tuple[int, bytes]]:
        """What a P-DATA holds: each message control header, and its fragment."""
        body, at = self.heard[place][1], 0
        while at < len(body):
            length, _, control = struct.unpack_from(">IBB", body, at)
            yield control, body[at + 6 : at + 4 + length]
            at += 4 + length

    def say(self, values: Mapping[Element, CommandValue], dataset: bytes = b"") -> None:
        """Send a command set, and a data set where there is one."""
        encoded = encode_command({**values, Element.DATA_SET_TYPE: 0 if dataset else NO_DATA_SET})
        for control, part in ((3, encoded), (2, dataset)):
            if part:
                pdv = struct.pack(">IBB", len(part) + 2, 1, control) + part
                self.connection.sendall(struct.pack(">BxI", Pdu.DATA, len(pdv)) + pdv)

    def command(self, place: int) -> dict[Element, CommandValue]:
        """The command set that a P-DATA begins with."""
        return decode_command(next(self.fragments(place))[1])

    def answer(self, status: int = 0, *, to: int = 1) -> None:
        """Send a C-STORE response."""
        self.say({Element.COMMAND_FIELD: 0x8001, Element.MESSAGE_ID_BEING_RESPONDED_TO: to, Element.STATUS: status})

    def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            more = self.connection.recv(count - len(received))
            if not more:
                raise ConnectionError
            received += more
        return received


@contextmanager
def scripted(script: Callable[[Node], None]) -> Iterator[tuple[Peer, list[Node]]]:
    """A peer that acts a script on the first connection, and the node that did once it has."""
    nodes: list[Node] = []

    def act() -> None:
        connection, _ = server.accept()
        with connection, suppress(ConnectionError):
            nodes.append(Node(connection))
            script(nodes[0])

    with socket.create_server(("127.0.0.1", 0)) as server:
        actor = Thread(target=act)
        actor.start()
        try:
            yield Peer(ae_title="NODE", host="127.0.0.1", port=server.getsockname()[1]), nodes
        finally:
            actor.join(10)
    assert not actor.is_alive()


def stored(peer: Peer, dataset: bytes = b"1234") -> int:
    """Send a data set over an association of its own; answer the status."""
    with associate(peer, [CONTEXT], calling_ae_title="CXRWORKER") as association:
        return int(association.ask(CONTEXT, STORE, dataset).command[Element.STATUS])


def release(node: Node) -> None:
    """Answer a release."""
    assert node.pdu() == Pdu.RELEASE_RQ
    node.connection.sendall(struct.pack(">BxI4x", Pdu.RELEASE_RP, 4))


@pytest.mark.parametrize("limit", [0, 1001, 16384, 2**31])
def test_no_pdu_is_longer_than_the_peer_takes_and_every_fragment_is_even(limit: int) -> None:
    dataset = bytes(range(256)) * 1024

    def script(node: Node) -> None:
        own = struct.pack(">BxHI", 0x51, 4, MAX_PDU_BYTES)
        node.accept(changed=lambda answer: answer.replace(own, struct.pack(">BxHI", 0x51, 4, limit)))
        assert node.message() == dataset
        node.answer()
        release(node)

    with scripted(script) as (peer, nodes):
        assert stored(peer, dataset) == 0
    (node,) = nodes
    lengths = [len(body) for kind, body in node.heard if kind == Pdu.DATA]
    assert max(lengths) <= min(limit or MAX_PDU_BYTES, MAX_PDU_BYTES)
    fragments = [fragment for place in range(len(lengths)) for _, fragment in node.fragments(place)]
    assert all(len(fragment) % 2 == 0 for fragment in fragments)


def test_an_answer_to_something_else_is_passed_over() -> None:
    def script(node: Node) -> None:
        node.accept()
        node.message()
        node.answer(0xC000, to=7)
        node.answer(0x0000)
        release(node)

    with scripted(script) as (peer, _):
        assert stored(peer) == 0


def test_a_request_that_comes_before_the_answer_is_kept_for_its_turn() -> None:
    def script(node: Node) -> None:
        node.accept()
        node.message()
        node.say({Element.COMMAND_FIELD: Request.N_EVENT_REPORT, Element.MESSAGE_ID: 9, Element.EVENT_TYPE_ID: 1})
        node.answer()
        assert node.pdu() == Pdu.DATA
        release(node)

    with scripted(script) as (peer, nodes), associate(peer, [CONTEXT], calling_ae_title="CXRWORKER") as association:
        association.ask(CONTEXT, STORE, b"1234")
        event = association.next_request(seconds=5)
        assert event is not None
        assert event.command[Element.MESSAGE_ID] == 9
        association.answer(event, {Element.STATUS: 0})
    assert nodes[0].command(-2) == {
        Element.COMMAND_FIELD: Request.N_EVENT_REPORT | 0x8000,
        Element.MESSAGE_ID_BEING_RESPONDED_TO: 9,
        Element.DATA_SET_TYPE: NO_DATA_SET,
        Element.STATUS: 0,
    }


@pytest.mark.parametrize(("settles", "status"), [(True, 0x0000), (False, 0x0106)])
def test_a_commitment_is_asked_for_as_the_standard_says_and_its_answer_answered(*, settles: bool, status: int) -> None:
    answer = Dataset()
    answer.TransactionUID = "1.2.3.4"
    answer.ReferencedSOPSequence = [Dataset()]
    answer.ReferencedSOPSequence[0].ReferencedSOPClassUID = CONTEXT[0]
    answer.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"

    def script(node: Node) -> None:
        node.accept()
        node.message()
        node.say({Element.COMMAND_FIELD: 0x8130, Element.MESSAGE_ID_BEING_RESPONDED_TO: 1, Element.STATUS: 0})
        event = {Element.COMMAND_FIELD: Request.N_EVENT_REPORT, Element.MESSAGE_ID: 5, Element.EVENT_TYPE_ID: 2}
        node.say(event, encode_payload(answer))
        assert node.pdu() == Pdu.DATA
        if node.pdu() == Pdu.RELEASE_RQ:
            node.connection.sendall(struct.pack(">BxI4x", Pdu.RELEASE_RP, 4))

    def settle(told: Commitment) -> None:
        assert told == Commitment(transaction_uid="1.2.3.4", committed=frozenset({SOPInstanceUID("1.2.3")}), failed={})
        if not settles:
            raise InvalidObject

    request = CommitmentRequest(transaction_uid="1.2.3.4", objects=[(CONTEXT[0], SOPInstanceUID("1.2.3"))])
    with scripted(script) as (peer, nodes):
        assert ask_to_commit(peer, request, calling_ae_title="CXRWORKER", settle=settle) == settles
    (node,) = nodes
    assert node.command(0) == {
        Element.REQUESTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
        Element.COMMAND_FIELD: Request.N_ACTION,
        Element.MESSAGE_ID: 1,
        Element.DATA_SET_TYPE: 0,
        Element.REQUESTED_SOP_INSTANCE_UID: "1.2.840.10008.1.20.1.1",
        Element.ACTION_TYPE_ID: 1,
    }
    assert node.command(-2) == {
        Element.AFFECTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
        Element.COMMAND_FIELD: Request.N_EVENT_REPORT | 0x8000,
        Element.MESSAGE_ID_BEING_RESPONDED_TO: 5,
        Element.DATA_SET_TYPE: NO_DATA_SET,
        Element.STATUS: status,
        Element.AFFECTED_SOP_INSTANCE_UID: "1.2.840.10008.1.20.1.1",
        Element.EVENT_TYPE_ID: 2,
    }


@pytest.mark.parametrize("ending", [struct.pack(">BxI4x", Pdu.RELEASE_RQ, 4), struct.pack(">BxI4x", Pdu.ABORT, 4), b""])
def test_a_peer_that_ends_the_association_after_it_was_asked_to_commit_was_asked(ending: bytes) -> None:
    def script(node: Node) -> None:
        node.accept()
        node.message()
        node.say({Element.COMMAND_FIELD: 0x8130, Element.MESSAGE_ID_BEING_RESPONDED_TO: 1, Element.STATUS: 0})
        node.connection.sendall(ending)

    request = CommitmentRequest(transaction_uid="1.2.3.4", objects=[(CONTEXT[0], SOPInstanceUID("1.2.3"))])
    with scripted(script) as (peer, _):
        assert not ask_to_commit(peer, request, calling_ae_title="CXRWORKER", settle=Mock(side_effect=AssertionError))


@pytest.mark.parametrize(("result", "is_final"), [(1, False), (2, False), (3, True), (4, True)])
def test_only_a_context_that_the_peer_does_not_know_is_refused_for_good(result: int, *, is_final: bool) -> None:
    def refused(answer: bytes) -> bytes:
        at = answer.index(b"\x21\0") + 6  # PS3.8 table 9-18
        return answer[:at] + bytes([result]) + answer[at + 1 :]

    def script(node: Node) -> None:
        node.accept(changed=refused)
        release(node)

    with (
        scripted(script) as (peer, _),
        pytest.raises(PeerRefused) as caught,
        associate(peer, [CONTEXT], calling_ae_title="CXR"),
    ):
        pass
    assert isinstance(caught.value, ObjectRefused) == is_final


def test_message_numbers_begin_again_after_the_last() -> None:
    def script(node: Node) -> None:
        node.accept()
        for number in (0xFFFF, 1):
            node.message()
            node.answer(to=number)
        release(node)

    with scripted(script) as (peer, _), associate(peer, [CONTEXT], calling_ae_title="CXRWORKER") as association:
        association._message_id = 0xFFFE  # noqa: SLF001  65,534 messages before
        for _ in range(2):
            association.ask(CONTEXT, STORE, b"1234")


def test_what_goes_wrong_ends_in_an_abort_and_what_goes_well_in_a_release() -> None:
    def script(node: Node) -> None:
        node.accept()
        node.message()
        node.answer()
        if node.pdu() == Pdu.RELEASE_RQ:
            node.connection.sendall(struct.pack(">BxI4x", Pdu.RELEASE_RP, 4))

    with scripted(script) as (peer, nodes):
        stored(peer)
    assert nodes[0].heard[-1][0] == Pdu.RELEASE_RQ

    def break_off(association: Association) -> None:
        association.ask(CONTEXT, STORE, b"1234")
        raise ObjectRefused

    with (
        scripted(script) as (peer, nodes),
        pytest.raises(ObjectRefused),
        associate(peer, [CONTEXT], calling_ae_title="CXRWORKER") as association,
    ):
        break_off(association)
    assert nodes[0].heard[-1][0] == Pdu.ABORT


def test_a_peer_that_releases_in_the_middle_is_answered_and_counts_as_gone() -> None:
    def script(node: Node) -> None:
        node.accept()
        node.message()
        node.connection.sendall(struct.pack(">BxI4x", Pdu.RELEASE_RQ, 4))
        node.pdu()

    with scripted(script) as (peer, nodes), pytest.raises(PeerUnavailable, match="the peer released it"):
        stored(peer)
    assert nodes[0].heard[-1][0] == Pdu.RELEASE_RP


def test_only_contexts_that_were_proposed_and_accepted_are_used() -> None:
    def second_alone(answer: bytes) -> bytes:
        # Of the items of the two contexts, 0x21, the first is refused, and the second comes under a number nobody proposed too.
        first = answer.index(b"\x21\0")
        length = 4 + struct.unpack_from(">H", answer, first + 2)[0]
        item = bytearray(answer[first : first + length])
        item[6] = 4
        unknown = bytearray(answer[first : first + length])
        unknown[4] = 5
        rest = answer[first + length :]
        body = answer[6:first] + bytes(item) + bytes(unknown) + rest
        return struct.pack(">BxI", Pdu.ASSOCIATE_AC, len(body)) + body

    def script(node: Node) -> None:
        node.accept(changed=second_alone)
        release(node)

    with scripted(script) as (peer, _), associate(peer, [CONTEXT, ANOTHER], calling_ae_title="CXRWORKER") as association:
        assert [association.accepts(context) for context in (CONTEXT, ANOTHER)] == [False, True]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer as a DICOM node"),
        (struct.pack(">BxI", Pdu.ASSOCIATE_AC, 2**30), "does not answer as a DICOM node"),
        (struct.pack(">BxI", Pdu.ASSOCIATE_AC, 4) + b"\1\0\0\0", "does not answer as a DICOM node"),
        (struct.pack(">BxI", Pdu.DATA, 6) + bytes(6), "does not answer as a DICOM node"),
        (struct.pack(">BxI4x", Pdu.ABORT, 4), "aborted the association"),
        (b"\2\0\0", "broke off"),
    ],
)
def test_a_peer_that_answers_with_something_else_cannot_be_reached(said: bytes, words: str) -> None:
    def script(node: Node) -> None:
        node.pdu()
        node.connection.sendall(said)

    with scripted(script) as (peer, _), pytest.raises(PeerUnreachable, match=words):
        stored(peer)


@pytest.mark.parametrize("control", [0, 1])
def test_a_message_without_end_is_not_listened_to_for_long(control: int) -> None:
    def script(node: Node) -> None:
        node.accept()
        node.message()
        pdv = struct.pack(">IBB", 64002, 1, control) + bytes(64000)
        while True:
            node.connection.sendall(struct.pack(">BxI", Pdu.DATA, len(pdv)) + pdv)

    with scripted(script) as (peer, _), pytest.raises(PeerUnavailable, match="a message without end"):
        stored(peer)


def test_a_peer_that_answers_byte_by_byte_has_no_more_time_than_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requestor, "ANSWER_SECONDS", 0.3)
    gone = Event()

    def script(node: Node) -> None:
        node.accept()
        node.message()
        answer = struct.pack(">BxI", Pdu.DATA, 1000) + bytes(1000)
        for place in range(len(answer)):
            node.connection.sendall(answer[place : place + 1])
            if gone.wait(0.02):
                return

    with scripted(script) as (peer, nodes):
        with pytest.raises(PeerUnavailable, match="does not answer"):
            stored(peer)
        gone.set()
    assert nodes


def test_what_a_peer_says_of_its_refusal_stands_apart_from_our_words(tmp_path: Path) -> None:
    def script(node: Node) -> None:
        node.accept()
        node.message()
        node.say(
            {
                Element.COMMAND_FIELD: 0x8001,
                Element.MESSAGE_ID_BEING_RESPONDED_TO: 1,
                Element.STATUS: 0xA900,
                Element.ERROR_COMMENT: "TEST^ONE is unknown",
            }
        )
        release(node)

    with scripted(script) as (peer, _):
        (outcome,) = send(peer, [write(make_dx(), tmp_path / "image.dcm")], calling_ae_title="CXRWORKER")
    assert outcome.error is not None
    assert str(outcome.error) == "C-STORE was answered 0xA900."
    assert outcome.error.in_full == "C-STORE was answered 0xA900. The peer says: TEST^ONE is unknown"


def test_a_peer_that_says_nothing_more_asks_nothing() -> None:
    def script(node: Node) -> None:
        node.accept()
        release(node)

    with scripted(script) as (peer, _), associate(peer, [CONTEXT], calling_ae_title="CXRWORKER") as association:
        assert association.next_request(seconds=0.01) is None
