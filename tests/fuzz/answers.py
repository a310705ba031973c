"""What peers answer us, over DICOM and over HTTP."""

import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Final

import numpy as np

from dicom_io.command import Element, Request
from dicom_io.commitment import STORAGE_COMMITMENT, CommitmentRequest, ask_to_commit
from dicom_io.errors import DicomError
from dicom_io.query import count_instances
from dicom_io.sender import echo, send
from dicom_io.stow import WebPeer, greet_service, send_to_service
from dicom_io.values import Peer, SOPClassUID, SOPInstanceUID, StudyUID
from tests.factories import make_dx
from tests.fuzz import pdu, told
from tests.fuzz.associations import IMPLICIT
from tests.fuzz.files import file_in_memory
from tests.fuzz.pictures import part10
from tests.fuzz.target import Broken, Target

_STUDY = StudyUID("1.2.3")


# --- answers over DICOM ---


class _Says:
    """A peer on a port of its own that says whatever it is told to whoever connects, and listens to the end."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]
        self.words = b""
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            Thread(target=self._say, args=(self._socket.accept()[0],), daemon=True).start()

    def _say(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(60)
            connection.sendall(self.words)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass


_says = cache(_Says)


@cache
def _outgoing() -> Path:
    path = file_in_memory("outgoing")
    path.write_bytes(part10(make_dx(np.zeros((8, 8), np.uint8))))
    return path


def _call(data: bytes) -> None:
    """The first byte chooses what is asked, and whether the association is accepted before the rest is said."""
    choice, said = data[0] if data else 0, data[1:]
    peer = Peer(ae_title="PACS", host="127.0.0.1", port=_says().port)
    _says().words = said if choice & 4 else _ACCEPTED + said
    match choice & 3:
        case 0:
            echo(peer, calling_ae_title="CXRWORKER")
        case 1:
            outcomes = list(send(peer, [_outgoing()] * 2, calling_ae_title="CXRWORKER"))
            if len(outcomes) != 2:
                raise Broken("not one outcome for each file")
        case 2:
            for _, count in count_instances(peer, [_STUDY, _STUDY], calling_ae_title="CXRWORKER"):
                if isinstance(count, int) and not 0 <= count < 10**9:
                    raise Broken("a count that is none")
        case _:
            request = CommitmentRequest(transaction_uid="2.25.1", objects=[(SOPClassUID(told.DX), SOPInstanceUID("1.2.3"))])
            ask_to_commit(peer, request, calling_ae_title="CXRWORKER", settle=lambda _: None)


_ACCEPTED: Final = pdu.associate_ac([(number, IMPLICIT) for number in range(1, 9, 2)])
_RELEASED: Final = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"


def _answer(command: int, number: int, status: int, dataset: bytes = b"") -> bytes:
    fields = {
        Element.COMMAND_FIELD: command | 0x8000,
        Element.MESSAGE_ID_BEING_RESPONDED_TO: number,
        Element.STATUS: status,
        Element.ERROR_COMMENT: "so it is",
    }
    return pdu.message(1, fields, dataset)


def _found(count: str) -> bytes:
    ds = told.item(QueryRetrieveLevel="STUDY", StudyInstanceUID=_STUDY)
    ds.NumberOfStudyRelatedInstances = count
    return told.written(ds)


def _answers() -> list[bytes]:
    finds = b"".join(
        _answer(Request.C_FIND, number, 0xFF00, _found("7")) + _answer(Request.C_FIND, number, 0) for number in (1, 2)
    )
    event = {
        Element.AFFECTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
        Element.COMMAND_FIELD: int(Request.N_EVENT_REPORT),
        Element.MESSAGE_ID: 9,
        Element.EVENT_TYPE_ID: 1,
    }
    return [
        b"\x00" + _answer(Request.C_ECHO, 1, 0) + _RELEASED,
        b"\x01" + _answer(Request.C_STORE, 1, 0) + _answer(Request.C_STORE, 2, 0xA700) + _RELEASED,
        b"\x01" + _answer(Request.C_STORE, 1, 0xB000) + b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        b"\x02" + finds + _RELEASED,
        b"\x03" + _answer(Request.N_ACTION, 1, 0) + pdu.message(1, event, told.COMMITMENT) + _RELEASED,
        b"\x04" + _ACCEPTED + _answer(Request.C_ECHO, 1, 0),
        b"\x05\x03\x00\x00\x00\x00\x04\x00\x01\x01\x07",
        b"\x06" + pdu.associate_ac([(1, IMPLICIT)], result=3),
    ]


def _hostile_answers() -> Iterator[tuple[str, bytes]]:
    yield "a message without end", b"\x02" + pdu.data_pdu(1, 0, bytes(1024 * 1024 - 6)) * 64
    yield "100,000 empty values", b"\x02" + pdu.data_pdu(1, 1, b"") * 100_000
    yield "10,000 answers to one question", b"\x02" + _answer(Request.C_FIND, 1, 0xFF00, _found("7")) * 10_000
    yield (
        "10,000 requests before the answer",
        b"\x00" + _answer(Request.C_ECHO, 1, 0).replace(b"\x30\x80", b"\x30\x00") * 10_000,
    )
    yield "a PDU of 4 GB", b"\x04\x02\x00\xff\xff\xff\xff" + bytes(1 << 26)
    long = b"1\\" * 500_000
    dataset = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY \x20\x00\x0d\x00" + len(long).to_bytes(4, "little") + long
    yield "a study of 500,000 UIDs", b"\x02" + _answer(Request.C_FIND, 1, 0xFF00, dataset) * 3
    yield "100,000 accepted contexts", b"\x04" + pdu.associate_ac([(1, IMPLICIT)] * 2000)


PEER = Target(
    name="peer",
    says=(
        "Whatever a peer says that we call, over a connection to a port: answers to C-ECHO, C-STORE, C-FIND and N-ACTION with "
        "its N-EVENT-REPORT, mostly after an accepted association (`requestor`, `sender`, `query`, `commitment`)."
    ),
    run=_call,
    allowed=(DicomError,),
    seeds=_answers,
    hostile=_hostile_answers,
    longest=8192,
)


# --- answers over HTTP ---


def _post(data: bytes) -> None:
    """The first byte chooses whether a head is put before the rest."""
    choice, said = data[0] if data else 0, data[1:]
    if choice % 4:
        status, kind = ((200, b""), (409, b""), (202, b"Content-Encoding: gzip\r\n"))[choice % 4 - 1]
        said = (
            b"HTTP/1.1 %d X\r\nContent-Type: application/dicom+json\r\n%sContent-Length: %d\r\n\r\n" % (status, kind, len(said))
            + said
        )
    _says().words = said
    peer = WebPeer(url=f"http://127.0.0.1:{_says().port}/dicom-web")
    if choice & 8:
        greet_service(peer)
    elif len(list(send_to_service(peer, [_outgoing()]))) != 1:
        raise Broken("not one outcome for each file")


def _stored(reason: object) -> bytes:
    return json.dumps({"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}}).encode()


def _web_answers() -> list[bytes]:
    xml = b'<?xml version="1.0"?><NativeDicomModel><DicomAttribute tag="00081198" vr="SQ"/></NativeDicomModel>'
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    return [
        b"\x01" + _stored(0x0112),
        b"\x02" + _stored(0x0111),
        b"\x01[" + _stored(43264) + b"]",
        b"\x03" + gzip.compress(_stored(0xA700), mtime=0),
        b"\x01" + xml,
        b"\x00" + chunked % (len(_stored(1)), _stored(1)),
        b"\x00HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n",
        b"\x00HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"\x08HTTP/1.0 200 OK\r\n\r\n[]",
        b"\x00HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ]


def _hostile_web_answers() -> Iterator[tuple[str, bytes]]:
    yield "500,000 lists in each other", b"\x01" + b"[" * 500_000
    yield "a reason without end", b"\x01" + _stored(0).replace(b"[0]", b"[1e999]")
    yield "a reason of a million digits", b"\x01" + _stored(0).replace(b"[0]", b"[" + b"9" * 1_000_000 + b"]")
    yield "a gigabyte in a megabyte of gzip", b"\x03" + _gzipped(bytes(1 << 20), 1024)
    yield "256 MB without a length", b"\x00HTTP/1.1 200 OK\r\n\r\n" + bytes(1 << 28)
    yield "10,000 headers", b"\x00HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n"
    yield "a header of 1 MB", b"\x00HTTP/1.1 200 OK\r\nX: " + b"y" * (1 << 20) + b"\r\n\r\n"
    yield "200,000 interim answers", b"\x00" + b"HTTP/1.1 100 Continue\r\n\r\n" * 200_000
    deep = b'{"00081198":' * 20_000
    yield "20,000 objects in each other", b"\x01" + deep
    packed = _stored(0)
    for _ in range(4):
        packed = gzip.compress(packed, mtime=0)
    yield "gzip in gzip", b"\x00HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip, gzip, gzip\r\n\r\n" + packed


def _gzipped(block: bytes, times: int) -> bytes:
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    return b"".join([*(packer.compress(block) for _ in range(times)), packer.flush()])


WEB = Target(
    name="web",
    says=(
        "Whatever a DICOMweb service says, headers and all, over a connection to a port: answers in JSON, XML, chunks and "
        "gzip to STOW-RS and to a greeting (`stow`)."
    ),
    run=_post,
    allowed=(DicomError,),
    seeds=_web_answers,
    hostile=_hostile_web_answers,
    longest=4096,
)
