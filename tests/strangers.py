"""Callers that are no library: what they say and hear is bytes (PS3.8 section 9.3)."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from dicom_io.negotiation import VERIFICATION
from tests.fuzz.pdu import associate_rq

_CONTEXTS = [(1, VERIFICATION, ["1.2.840.10008.1.2"])]
REQUEST = associate_rq(_CONTEXTS)
"""To be let in for C-ECHO."""
_PROVIDER = 2


@contextmanager
def connected(port: int, address: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A connection to a port of this machine, from one of its addresses."""
    with socket.create_connection(("127.0.0.1", port), source_address=(address, 0)) as connection:
        connection.settimeout(20)
        yield connection


def abort_reason(connection: socket.socket) -> int:
    """The reason of the A-ABORT that comes next; the connection is closed behind it."""
    pdu = b"".join(iter(lambda: connection.recv(100), b""))
    assert pdu[:6] == b"\x07\x00\x00\x00\x00\x04", pdu
    assert pdu[8] == _PROVIDER
    return pdu[9]


def rejection(port: int, *, called: str = "CXRWORKER", calling: str = "MODALITY") -> tuple[int, int, int]:
    """Result, source and reason of the A-ASSOCIATE-RJ that answers a request.

    pynetdicom takes one of some hundred rejections for an abort, where the connection ends as soon as it is told.
    """
    with connected(port) as connection:
        connection.sendall(associate_rq(_CONTEXTS, called=called.encode(), calling=calling.encode()))
        pdu = b"".join(iter(lambda: connection.recv(100), b""))
    assert pdu[:6] == b"\x03\x00\x00\x00\x00\x04", pdu
    result, source, reason = pdu[7:]
    return result, source, reason
