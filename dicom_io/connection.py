"""A connection that we open, over TLS where that is wanted, and the PDUs on it (PS3.8 section 9.3); its troubles in words.

An answer to us has a deadline as a whole. `wire`, which reads what others begin, waits as long as a sender gets on.
"""

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from dicom_io.errors import AssociationRejected, PeerUnavailable, PeerUnreachable
from dicom_io.handshake import explain
from dicom_io.values import Peer

CONNECT_SECONDS = 5.0
SEND_SECONDS = 30.0
LONGEST_PDU_BYTES = 1024 * 1024
"""What a peer may send us at most, whatever it was told: an answer is a few hundred bytes."""
_HEADER = struct.Struct(">BxI")


class Connection:
    """An open connection; `connect` makes it."""

    def __init__(self, connection: socket.socket, where: str) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self.where = where
        """Names the peer, for messages."""

    def send(self, encoded: bytes) -> None:
        """Send, or raise `TimeoutError` where the peer does not read."""
        self._connection.settimeout(SEND_SECONDS)
        self._connection.sendall(encoded)

    def receive_pdu(self, deadline: float) -> tuple[int, bytes]:
        """Wait for a PDU; answer its type and the whole of it.

        Raises
        ------
        TimeoutError
            Not all of it came in time.
        PeerUnavailable
            The connection ended, or it is longer than any answer.
        """
        self._fill(_HEADER.size, deadline)
        kind, length = _HEADER.unpack_from(self._buffer)
        if length > LONGEST_PDU_BYTES:
            raise PeerUnavailable(f"{self.where} does not answer as a DICOM node.")
        self._fill(_HEADER.size + length, deadline)
        pdu = bytes(self._buffer[: _HEADER.size + length])
        del self._buffer[: _HEADER.size + length]
        return kind, pdu

    def _fill(self, count: int, deadline: float) -> None:
        while len(self._buffer) < count:
            remaining = deadline - monotonic()
            if remaining <= 0:
                raise TimeoutError
            self._connection.settimeout(remaining)
            received = self._connection.recv(64 * 1024)
            if not received:
                raise PeerUnavailable("The association broke off.")
            self._buffer += received


@contextmanager
def connect(peer: Peer, tls: ssl.SSLContext | None) -> Iterator[Connection]:
    """Open a connection, over TLS where a context is given, closed when the context is left.

    Raises
    ------
    PeerUnreachable
        Nobody is there.
    AssociationRejected
        A certificate does not do.
    """
    where = f"{peer.ae_title} at {peer.host}:{peer.port}"
    with in_words(where, PeerUnreachable):
        connection = socket.create_connection((peer.host, peer.port), timeout=CONNECT_SECONDS)
    try:
        with in_words(where, PeerUnreachable):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                connection = _over_tls(connection, tls, peer.host)
        yield Connection(connection, where)
    finally:
        connection.close()


def _over_tls(connection: socket.socket, tls: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    try:
        return tls.wrap_socket(connection, server_hostname=host)
    except ConnectionError as error:  # DCMTK's way to say that it heard no A-ASSOCIATE-RQ
        raise ssl.SSLEOFError from error


@contextmanager
def in_words(where: str, otherwise: type[PeerUnavailable] = PeerUnavailable) -> Iterator[None]:
    """Raise what happens to a connection as one of our errors: `AssociationRejected` where TLS failed, else `otherwise`."""
    try:
        yield
    except ssl.SSLEOFError as error:
        raise otherwise(
            f"{where} ended the connection during TLS: does it speak TLS on this port, and know the CA of our certificate?"
        ) from error
    except ssl.SSLError as error:
        raise AssociationRejected(f"TLS with {where} failed: {explain(error)}.") from error
    except TimeoutError as error:
        raise otherwise(f"{where} does not answer.") from error
    except UnicodeError as error:  # of the codec of names, before any is looked up
        raise otherwise(f"{where} cannot be looked up: no host has this name.") from error
    except OSError as error:
        raise otherwise(f"{where} does not answer: {error.strerror or type(error).__name__}.") from error
    except PeerUnavailable as error:
        if isinstance(error, otherwise):
            raise
        raise otherwise(str(error)) from error
