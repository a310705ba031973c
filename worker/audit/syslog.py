"""Syslog: audit messages framed by RFC 5424, over TLS (RFC 5425) or UDP (RFC 5426), as PS3.15 A.6 and A.7 want them."""

import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

SECURITY_NOTICE = 10 * 8 + 5
"""Facility 10 (security and authorization), severity 5 (notice)."""
MESSAGE_ID = "DICOM+RFC3881"
_BOM = b"\xef\xbb\xbf"
"""Says that what follows is UTF-8 (RFC 5424 section 6.4)."""
_SECONDS = 10.0


def syslog_message(xml: bytes, *, at: datetime, host: str) -> bytes:
    """One message (RFC 5424 section 6) without the framing of its transport."""
    moment = at.isoformat(timespec="milliseconds")
    header = f"<{SECURITY_NOTICE}>1 {moment} {_name(host)} cxr-worker {os.getpid()} {MESSAGE_ID} - "
    return header.encode("ascii") + _BOM + xml


def send_over_tls(messages: Sequence[bytes], address: tuple[str, int], context: ssl.SSLContext) -> None:
    """Send messages over one connection, each with its length before it (RFC 5425 section 4.3).

    Syslog has no answer. So the connection is ended in order, and the repository is waited for to end its side: what it had not
    read by then, an error tells. One that leaves TLS's word of ending without an answer must close the connection at least.

    Raises
    ------
    OSError
        The repository cannot be reached, is not who it should be, broke off, or did not end its side in time, as one that
        hangs; some messages may have arrived.
    """
    with (
        socket.create_connection(address, timeout=_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=address[0]) as connection,
    ):
        for message in messages:
            connection.sendall(b"%d %s" % (len(message), message))
        with suppress(TimeoutError, ssl.SSLEOFError, ssl.SSLZeroReturnError):  # it answers, or does not, in its own manner
            connection.unwrap()
        _await_end(connection)


def _await_end(connection: ssl.SSLSocket) -> None:
    """Say that nothing more comes, and wait until the peer has closed its side having read all: a system resets otherwise."""
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(4096):  # of TLS, which has ended here
        pass


def send_over_udp(messages: Sequence[bytes], address: tuple[str, int], *, instead: Callable[[int], bytes]) -> int:
    """Send messages, each in a datagram of its own (RFC 5426 section 3.1). Nobody can tell whether they arrive.

    Parameters
    ----------
    instead
        What to send for a message that fits into no datagram, which no other attempt would mend; asked with its index.

    Returns
    -------
    How many fitted into none.

    Raises
    ------
    OSError
        The host has no address, or the network is down.
    """
    family, kind, protocol, _, resolved = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
    too_long = 0
    with socket.socket(family, kind, protocol) as sending:
        for index, message in enumerate(messages):
            try:
                sending.sendto(message, resolved)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                too_long += 1
                sending.sendto(instead(index), resolved)
    return too_long


def _name(host: str) -> str:
    """HOSTNAME: printable ASCII without spaces, at most 255; ``-`` where there is none."""
    return "".join(character for character in host if "!" <= character <= "~")[:255] or "-"
