"""Connections that have not asked for an association yet: one thread reads them all, and none has more memory than it said.

Those that say nothing, those that stop in the middle of a TLS handshake or of their request, and those of strangers stand in
rows of their own, each for so many. Where a row is full, the oldest of the address that has most in it makes place: a thousand
of somebody else keep nobody waiting.
"""

import errno
import selectors
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from logging import getLogger
from time import monotonic, sleep
from typing import Protocol

from dicom_io.ending import CROWDED, ERROR, PEER_LEFT, STRANGER, UNASKED, Ending, of_protocol
from dicom_io.guests import Guest, Row
from dicom_io.handshake import explain
from dicom_io.wire import ProtocolError, encode_abort

_SILENT_AT_ONCE = 512
_SPEAKING_AT_ONCE = 128
_STRANGERS_AT_ONCE = 16
_FRAGMENT_BYTES = 64 * 1024
_TICK_SECONDS = 0.5

log = getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Who is heard, and for how long."""

    addresses: tuple[IPv4Network | IPv6Network, ...]
    """Empty: from anywhere."""
    stall_seconds: float
    """For the first word, for the TLS handshake, and for the request."""
    tls: Callable[[], ssl.SSLContext] | None
    """Gives the context of the next connection; None: no TLS is spoken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An association request, whole and not yet looked at."""

    connection: socket.socket
    """Does not block."""
    peer_address: str
    is_welcome: bool
    """Whether its address may call."""
    request: bytes


class Host(Protocol):
    """Whoever waits for requests. Must not take long: everybody waits meanwhile."""

    def asked(self, asked: Asked) -> bytes:
        """A request came: take the connection over and answer nothing, or answer what its peer is told before it is ended."""

    def lost(self, peer_address: str, ending: Ending) -> None:
        """A connection that had said something ended before its request was whole."""


class Lobby:
    """Where connections to one port wait until their request is whole.

    Parameters
    ----------
    listening
        The open port, which does not block; it is closed in the end.
    rules
        Who is heard, and for how long.
    host
        Is handed the requests.
    """

    def __init__(self, listening: socket.socket, rules: Rules, host: Host) -> None:
        self._listening = listening
        self._rules = rules
        self._host = host
        self._silent = Row(_SILENT_AT_ONCE)
        self._speaking = Row(_SPEAKING_AT_ONCE)
        self._strangers = Row(_STRANGERS_AT_ONCE)
        self._rows = (self._silent, self._speaking, self._strangers)
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)

    def close(self) -> None:
        """Let `run` come to its end."""
        self._closing = True

    def run(self) -> None:
        """Accept and read until it is closed."""
        with self._selector as selector, self._listening:
            while not self._closing:
                for key, _ in selector.select(_TICK_SECONDS):
                    self._guard(key.data, partial(self._attend, key.data))
                overdue = monotonic() - self._rules.stall_seconds
                for guest in [late for row in self._rows for late in row.since_before(overdue)]:
                    self._guard(guest, partial(self._lose_late, guest))
            for guest in [each for row in self._rows for each in row.everybody()]:
                self._leave(guest)
                guest.connection.close()

    def _guard(self, guest: Guest | None, attend: Callable[[], None]) -> None:
        """The boundary of what goes wrong over one connection: it must end no other."""
        try:
            attend()
        except Exception:
            log.exception("A connection ended by an error of ours.")
            if guest is None:
                return
            if guest.descriptor >= 0:  # it is told so, once: where memory is short there may be none for that either
                self._guard(guest, partial(self._lose, guest, ERROR))
            guest.connection.close()

    def _attend(self, guest: Guest | None) -> None:
        if guest is None:
            self._let_in()
        elif guest.descriptor >= 0:  # else it had to make place meanwhile
            self._hear(guest)

    def _let_in(self) -> None:
        try:
            connection, (address, *_) = self._listening.accept()
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                log.warning("No connection can be taken for now: %s.", error.strerror)
                sleep(_TICK_SECONDS)  # it stays in the queue: to look again at once would only burn the processor
            return  # else it is gone already
        connection.setblocking(False)
        address = _unmapped(address)
        networks = self._rules.addresses
        is_welcome = not networks or any(ip_address(address) in network for network in networks)
        guest = Guest(connection, address, is_welcome, self._silent if is_welcome else self._strangers)
        guest.descriptor = connection.fileno()
        self._selector.register(guest.descriptor, selectors.EVENT_READ, guest)
        self._stand(guest)

    def _hear(self, guest: Guest) -> None:
        try:
            if not guest.has_spoken and not self._greet(guest):
                return
            if self._rules.tls is not None and not guest.is_secure:
                guest.connection.do_handshake()  # type: ignore[attr-defined]  # it was wrapped when it began to speak
                guest.is_secure = True
                guest.row.remove(guest)
                self._stand(guest)  # its request has its own time
            while missing := guest.missing():
                fragment = guest.connection.recv(min(missing, _FRAGMENT_BYTES))
                if not fragment:
                    raise ConnectionError
                guest.said += fragment
        except (BlockingIOError, ssl.SSLWantReadError):
            self._selector.modify(guest.descriptor, selectors.EVENT_READ, guest)
        except ssl.SSLWantWriteError:
            self._selector.modify(guest.descriptor, selectors.EVENT_WRITE, guest)
        except (ProtocolError, OSError) as error:
            self._lose(guest, self._ending_of(guest, error))
        else:
            self._leave(guest)
            asked = Asked(
                connection=guest.connection,
                peer_address=guest.address,
                is_welcome=guest.is_welcome,
                request=bytes(guest.said),
            )
            if answer := self._host.asked(asked):
                _answer_and_close(guest.connection, answer)

    def _greet(self, guest: Guest) -> bool:
        """Hear a first word; answer whether the connection goes on."""
        if not guest.connection.recv(1, socket.MSG_PEEK):  # somebody looked whether the port is open
            self._leave(guest)
            guest.connection.close()
            return False
        guest.has_spoken = True
        if guest.is_welcome:
            guest.row.remove(guest)
            guest.row = self._speaking
            self._stand(guest)
        if self._rules.tls is not None:
            if not guest.is_welcome:  # a handshake is more than a stranger gets
                self._lose(guest, STRANGER)
                return False
            guest.connection = self._rules.tls().wrap_socket(guest.connection, server_side=True, do_handshake_on_connect=False)
        return True

    def _stand(self, guest: Guest) -> None:
        if (other := guest.row.add(guest)) is not None:
            self._lose(other, CROWDED)

    def _leave(self, guest: Guest) -> None:
        descriptor, guest.descriptor = guest.descriptor, -1
        guest.row.remove(guest)
        self._selector.unregister(descriptor)

    def _lose(self, guest: Guest, ending: Ending) -> None:
        self._leave(guest)
        if guest.has_spoken:
            if ending.answer is not None and guest.is_secure == (self._rules.tls is not None):
                _answer_and_close(guest.connection, encode_abort(ending.answer))
            self._host.lost(guest.address, ending if guest.is_welcome else STRANGER)
        guest.connection.close()

    def _lose_late(self, guest: Guest) -> None:
        self._lose(guest, self._ending_of(guest, TimeoutError()))

    def _ending_of(self, guest: Guest, error: ProtocolError | OSError) -> Ending:
        match error:
            case ProtocolError():
                return of_protocol(error)
            case OSError() if self._rules.tls is not None and not guest.is_secure:
                return Ending(reason="tls", words=f"TLS: {explain(error)}", is_rejection=True)
            case TimeoutError():
                return UNASKED
            case _:
                return PEER_LEFT


def _answer_and_close(connection: socket.socket, answer: bytes) -> None:
    with suppress(OSError), connection:
        connection.send(answer)
        connection.recv(_FRAGMENT_BYTES)  # the kernel takes the answer back where something lies unread


def _unmapped(address: str) -> str:
    """An IPv4 address that an IPv6 socket shows as ``::ffff:192.0.2.1``, as it is."""
    return address.removeprefix("::ffff:") if "." in address else address
