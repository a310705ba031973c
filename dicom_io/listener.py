"""The receiving end: who is let in, a thread for each association, and how it all ends (PS3.4 annexes A and B, PS3.8).

A connection takes no thread and no place before its whole request is there: until then it waits in the `lobby`.
"""

import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from logging import getLogger
from queue import Full, Queue
from threading import Condition, Thread
from types import MappingProxyType, TracebackType
from typing import Self

from dicom_io.acceptor import Acceptor, Answerers
from dicom_io.ending import ERROR, STOPPED, Ending, of_association, of_protocol
from dicom_io.errors import NotDicom
from dicom_io.keeper import Caller, Keeper
from dicom_io.lobby import Asked, Lobby, Rules
from dicom_io.negotiation import Refusal, agree, decode_request, fault_of, titles_of
from dicom_io.normalized import NormalizedService
from dicom_io.places import Places
from dicom_io.wire import AbortReason, Patience, ProtocolError, Wire, encode_abort

_GRACE_SECONDS = 5.0
_WORDS_AT_ONCE = 1024
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
        self._changed = Condition()
        self._connections: set[socket.socket] = set()
        self._places = settings.places or Places()
        self._is_breaking_off = False
        self._words: Queue[Callable[[], None] | None] = Queue(_WORDS_AT_ONCE)
        listening = settings.listening or open_port(settings.host, settings.port)
        self.port: int = listening.getsockname()[1]
        """The TCP port that is bound."""
        rules = Rules(addresses=settings.addresses, stall_seconds=settings.patience.stall_seconds, tls=tls)
        self._lobby = Lobby(listening, rules, self)
        self._accepting = Thread(target=self._lobby.run, name=f"accept-{self.port}", daemon=True)
        self._telling = Thread(target=self._tell, name=f"tell-{self.port}", daemon=True)
        self._accepting.start()
        self._telling.start()

    def close(self) -> None:
        """Accept no more; open associations get a few seconds to finish, then they are broken off."""
        self._lobby.close()
        self._accepting.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, timeout=_GRACE_SECONDS)
            self._is_breaking_off = True
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)  # its thread wakes up and ends
            self._changed.wait_for(lambda: not self._connections, timeout=_GRACE_SECONDS)
        with suppress(Full):
            self._words.put(None, timeout=_GRACE_SECONDS)
            self._telling.join(_GRACE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # what the lobby calls, in its one thread

    def asked(self, asked: Asked) -> bytes:
        """See `dicom_io.lobby.Host`: the association gets a place and a thread of its own, or is refused."""
        try:
            called, calling = titles_of(asked.request)
        except NotDicom as error:
            self.lost(asked.peer_address, of_protocol(ProtocolError(AbortReason.INVALID_PARAMETER, str(error))))
            return encode_abort(AbortReason.INVALID_PARAMETER)
        caller = Caller(calling_ae_title=calling, called_ae_title=called, peer_address=asked.peer_address)
        refusal = self._why_not(caller, is_welcome=asked.is_welcome) or self._places.take(caller)
        if refusal is None:
            if self._start(asked.connection, caller, asked.request):
                return b""
            self._places.leave(caller)
            refusal = Refusal.NO_THREAD
        self._will_tell(partial(self._answerers.keeper.rejected, caller, refusal.name.lower(), refusal.words))
        return refusal.encode()

    def lost(self, peer_address: str, ending: Ending) -> None:
        """See `dicom_io.lobby.Host`."""
        keeper, caller = self._answerers.keeper, Caller(peer_address=peer_address)
        tell = keeper.rejected if ending.is_rejection else keeper.aborted
        self._will_tell(partial(tell, caller, ending.reason, ending.words))

    def _why_not(self, caller: Caller, *, is_welcome: bool) -> Refusal | None:
        settings = self._settings
        if not is_welcome:
            return Refusal.ADDRESS
        if settings.called_ae_titles and caller.called_ae_title not in settings.called_ae_titles:
            return Refusal.CALLED_AE
        if settings.calling_ae_titles and caller.calling_ae_title not in settings.calling_ae_titles:
            return Refusal.CALLING_AE
        return None

    def _start(self, connection: socket.socket, caller: Caller, request: bytes) -> bool:
        with self._changed:
            self._connections.add(connection)
        try:
            Thread(target=self._serve, args=(connection, caller, request), name="association", daemon=True).start()
        except (RuntimeError, MemoryError):  # no thread to be had
            self._leave(connection)
            return False
        return True

    def _leave(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def _will_tell(self, word: Callable[[], None]) -> None:
        """Have the keeper told by a thread of its own: it may have to wait for a database, and the lobby must not."""
        try:
            self._words.put_nowait(word)
        except Full:
            log.warning("More callers are turned away than can be told of.")

    def _tell(self) -> None:
        while (word := self._words.get()) is not None:
            try:
                word()
            except Exception:
                log.exception("What became of a caller could not be told.")

    # what the thread of an association does

    def _serve(self, connection: socket.socket, caller: Caller, request: bytes) -> None:
        """An association from its request to its end, and what is told of that: by itself, however many strangers there are."""
        try:
            ending = self._associate(connection, caller, request)
            self._places.leave(caller)
            connection.close()
            if ending is not None:
                self._answerers.keeper.aborted(caller, ending.reason, ending.words)
        except Exception:
            log.exception("What became of a caller could not be told.")
        finally:
            self._leave(connection)

    def _associate(self, connection: socket.socket, caller: Caller, request: bytes) -> Ending | None:
        """The boundary of what goes wrong in an association."""
        wire = None
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            wire = Wire(connection, self._settings.patience)
            self._converse(wire, caller, request)
        except Exception as error:
            if self._is_breaking_off:
                return STOPPED
            ending = ERROR if wire is None else of_association(error, wire)
            if ending is ERROR:
                log.exception("An association ended by an error of ours.")
            if ending is not None and ending.answer is not None:
                with suppress(OSError):
                    connection.sendall(encode_abort(ending.answer))
            return ending
        return None

    def _converse(self, wire: Wire, caller: Caller, request: bytes) -> None:
        keeper, services = self._answerers.keeper, self._answerers.services
        try:
            proposal = decode_request(request)
        except NotDicom as error:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, str(error)) from error
        if (refusal := fault_of(proposal)) is not None:
            keeper.rejected(caller, refusal.name.lower(), refusal.words)
            wire.send(refusal.encode())
            return
        keeper.accepted(caller)
        try:
            agreement = agree(proposal, services.keys())
            wire.send(agreement.answer)
            Acceptor(wire, agreement, caller, self._answerers).serve()
        finally:
            keeper.closed(caller)


def open_port(host: str, port: int) -> socket.socket:
    """Open a port to listen on; 0 takes a free one. ``::`` hears IPv4 too.

    Raises
    ------
    OSError
        It cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    listening = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
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
