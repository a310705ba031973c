"""The receiving end: who is let in, a thread for each association, and how it all ends (PS3.4 annexes A and B, PS3.8).

Connections that have not said anything yet wait in one place and take no thread: a thousand of them keep nobody waiting.
"""

import errno
import selectors
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from logging import getLogger
from threading import Condition, Thread
from time import monotonic, sleep
from types import MappingProxyType, TracebackType
from typing import Self

from dicom_io.acceptor import Acceptor, Answerers
from dicom_io.errors import NotDicom
from dicom_io.handshake import explain
from dicom_io.keeper import Caller, Keeper
from dicom_io.negotiation import Proposal, Refusal, agree, decode_request, fault_of
from dicom_io.normalized import NormalizedService
from dicom_io.places import Places
from dicom_io.wire import AbortReason, Patience, Pdu, ProtocolError, Wire

_GRACE_SECONDS = 5.0
_SILENT_AT_ONCE = 512
"""Connections that have not said anything: beyond this the one that is silent for longest makes place."""
_LONGEST_REQUEST_BYTES = 256 * 1024
"""An association request of 128 contexts with 20 transfer syntaxes each has 80 KB."""
_TICK_SECONDS = 0.5
_BACKLOG = 1024

log = getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """Where to listen, to whom, and how much at once."""

    ae_title: str
    host: str
    port: int
    """0 takes a free one."""
    called_ae_titles: tuple[str, ...] = ()
    """Empty: whatever we are called."""
    calling_ae_titles: tuple[str, ...] = ()
    """Empty: anybody."""
    addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    """Empty: from anywhere."""
    places: Places | None = None
    """Shared with other ports; by default it has its own."""
    listening: socket.socket | None = None
    """The port, where it is open already (`open_port`), perhaps in other processes too."""
    maximum_object_bytes: int = 4 * 1024**3
    patience: Patience = field(default_factory=Patience)


class Listener:
    """A running acceptor. Leave the context, or `close`, to stop it."""

    def __init__(self, settings: ListenerSettings, answerers: Answerers, tls: Callable[[], ssl.SSLContext] | None) -> None:
        self._settings = settings
        self._answerers = answerers
        self._tls = tls
        self._changed = Condition()
        self._connections: set[socket.socket] = set()
        self._places = settings.places or Places()
        self._closing = False
        self._socket = settings.listening or open_port(settings.host, settings.port)
        self.port: int = self._socket.getsockname()[1]
        """The TCP port that is bound."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._accepting = Thread(target=self._accept, name=f"accept-{self.port}", daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Accept no more; open associations get a few seconds to finish, then they are broken off."""
        self._closing = True
        self._accepting.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, timeout=_GRACE_SECONDS)
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)  # its thread wakes up and ends
            self._changed.wait_for(lambda: not self._connections, timeout=_GRACE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        silent: dict[socket.socket, float] = {}
        """When each came, the oldest first."""
        with self._selector as selector, self._socket:
            while not self._closing:
                for key, _ in selector.select(_TICK_SECONDS):
                    if key.fileobj is self._socket:
                        if (connection := self._next_connection()) is not None:
                            silent[connection] = monotonic()
                            selector.register(connection, selectors.EVENT_READ)
                    elif isinstance(key.fileobj, socket.socket):
                        del silent[key.fileobj]
                        selector.unregister(key.fileobj)
                        self._start(key.fileobj)
                for connection, came in list(silent.items()):
                    if len(silent) <= _SILENT_AT_ONCE and monotonic() - came < self._settings.patience.stall_seconds:
                        break
                    del silent[connection]
                    selector.unregister(connection)
                    connection.close()
            for connection in silent:
                connection.close()

    def _next_connection(self) -> socket.socket | None:
        try:
            return self._socket.accept()[0]
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                log.warning("No connection can be taken for now: %s.", error.strerror)
                sleep(_TICK_SECONDS)  # it stays in the queue: to look again at once would only burn the processor
            return None  # else it is gone already

    def _start(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.add(connection)
        try:
            Thread(target=self._serve, args=(connection,), name="association", daemon=True).start()
        except RuntimeError:  # no thread to be had
            self._leave(connection)

    def _serve(self, connection: socket.socket) -> None:
        """A connection from its first byte to its end: the boundary of an association."""
        peer_address = ""
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            peer_address = _unmapped(connection.getpeername()[0])
            if self._tls is None:
                self._associate(connection, peer_address)
            elif not self._is_welcome(peer_address):  # a thread and a handshake are more than a stranger gets
                self._answerers.keeper.rejected(Caller(peer_address=peer_address), "address", Refusal.ADDRESS.words)
            else:
                self._shake_hands_and_associate(connection, peer_address, self._tls())
        except OSError:  # it is gone
            pass
        except Exception:
            log.exception("An association ended by an error of ours.")
        finally:
            self._leave(connection)

    def _leave(self, connection: socket.socket) -> None:
        connection.close()
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def _shake_hands_and_associate(self, connection: socket.socket, peer_address: str, tls: ssl.SSLContext) -> None:
        connection.settimeout(self._settings.patience.stall_seconds)
        try:
            secured = tls.wrap_socket(connection, server_side=True)
        except OSError as error:
            self._answerers.keeper.rejected(Caller(peer_address=peer_address), "tls", f"TLS: {explain(error)}")
            return
        with secured:
            self._associate(secured, peer_address)

    def _associate(self, connection: socket.socket, peer_address: str) -> None:
        wire = Wire(connection, self._settings.patience)
        try:
            proposal = self._read_proposal(wire)
            caller = Caller(
                calling_ae_title=proposal.calling_ae_title,
                called_ae_title=proposal.called_ae_title,
                peer_address=peer_address,
            )
            refusal = self._why_not(proposal, caller) or self._places.take(caller)
            if refusal is not None:
                self._answerers.keeper.rejected(caller, refusal.name.lower(), refusal.words)
                wire.send(refusal.encode())
                return
            try:
                self._answerers.keeper.accepted(caller)
                agreement = agree(proposal, self._answerers.services.keys())
                wire.send(agreement.answer)
                Acceptor(wire, agreement, caller, self._answerers).serve()
            finally:
                self._places.leave(caller)
                self._answerers.keeper.closed(caller)
        except TimeoutError:
            wire.abort(AbortReason.NOT_SPECIFIED)
        except ProtocolError as error:
            log.warning("An association was aborted: %s.", error)
            wire.abort(error.reason)

    def _read_proposal(self, wire: Wire) -> Proposal:
        kind, length = wire.next_pdu()
        if kind != Pdu.ASSOCIATE_RQ:
            raise ProtocolError(AbortReason.UNEXPECTED_PDU if kind in set(Pdu) else AbortReason.UNRECOGNIZED_PDU)
        if length > _LONGEST_REQUEST_BYTES:
            raise ProtocolError(AbortReason.INVALID_PARAMETER)
        try:
            return decode_request(bytes((kind, 0)) + length.to_bytes(4, "big") + bytes(wire.exactly(length)))
        except NotDicom as error:
            raise ProtocolError(AbortReason.INVALID_PARAMETER) from error

    def _why_not(self, proposal: Proposal, caller: Caller) -> Refusal | None:
        settings = self._settings
        if not self._is_welcome(caller.peer_address):
            return Refusal.ADDRESS
        if settings.called_ae_titles and caller.called_ae_title not in settings.called_ae_titles:
            return Refusal.CALLED_AE
        if settings.calling_ae_titles and caller.calling_ae_title not in settings.calling_ae_titles:
            return Refusal.CALLING_AE
        return fault_of(proposal)

    def _is_welcome(self, address: str) -> bool:
        networks = self._settings.addresses
        return not networks or any(ip_address(address) in network for network in networks)


def open_port(host: str, port: int) -> socket.socket:
    """Open a port to listen on; 0 takes a free one.

    Raises
    ------
    OSError
        It cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listening.setblocking(False)
    return listening


def listen(
    settings: ListenerSettings,
    *,
    keeper: Keeper,
    services: Mapping[str, NormalizedService] = MappingProxyType({}),
    tls: Callable[[], ssl.SSLContext] | None = None,
) -> Listener:
    """Start accepting associations, each in a thread of its own.

    Parameters
    ----------
    settings
        Address, AE title, who may call, and limits.
    keeper
        Keeps the objects, and is told what was refused.
    services
        Normalized services that are offered beside storage and verification, by SOP class UID.
    tls
        Where given, the port speaks TLS and nothing else, each connection with the context that this gives for it.

    Raises
    ------
    OSError
        The port cannot be bound.
    """
    return Listener(
        settings, Answerers(keeper=keeper, services=services, maximum_object_bytes=settings.maximum_object_bytes), tls
    )


def _unmapped(address: str) -> str:
    """An IPv4 address that an IPv6 socket shows as ``::ffff:192.0.2.1``, as it is."""
    return address.removeprefix("::ffff:") if "." in address else address
