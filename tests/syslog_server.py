"""A syslog server that keeps what it is sent: over TLS, each message with its length before it, or by UDP."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.certificates import Authority, Pair


@dataclass
class SyslogServer:
    """What came, in order. `breaks_after` ends a connection rudely after so many messages, if as many come."""

    port: int
    received: list[bytes] = field(default_factory=list)
    connections: int = 0
    breaks_after: int | None = None


def _reads_all(connection: ssl.SSLSocket, server: SyslogServer) -> bool:
    stream = connection.makefile("rb")
    count = 0
    while digits := _until_space(stream.read):
        server.received.append(stream.read(int(digits)))
        count += 1
        if count == server.breaks_after:
            return False
    return True


def _until_space(read: object) -> bytes:
    digits = b""
    while (byte := read(1)) not in {b" ", b""}:  # type: ignore[operator]
        digits += byte
    return digits


@contextmanager
def tls_syslog(own: Pair, authority: Authority) -> Iterator[SyslogServer]:
    """Run one that wants a certificate of the caller."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = SyslogServer(port=listening.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    plain, _ = listening.accept()
                except OSError:
                    return  # shut down
                server.connections += 1
                plain.settimeout(10)
                try:
                    with context.wrap_socket(plain, server_side=True) as connection:
                        if _reads_all(connection, server):
                            connection.unwrap().close()
                        else:
                            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # reset, not an orderly end
                except OSError:
                    plain.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def udp_syslog() -> Iterator[tuple[int, socket.socket]]:
    """A socket that datagrams come to, and its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(10)
        yield listening.getsockname()[1], listening
