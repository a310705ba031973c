"""What comes over one connection, PDU by PDU, through one buffer that is used again and again (PS3.8 section 9.3)."""

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from time import monotonic

_BUFFER_BYTES = 512 * 1024
_HEADER = struct.Struct(">BxI")


class Pdu(IntEnum):
    """Types of PDUs (PS3.8 tables 9-11 to 9-26)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class AbortReason(IntEnum):
    """Why we, the service provider, break an association off (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class ProtocolError(Exception):
    """The peer does not keep to the protocol. By default its message is the reason's name."""

    def __init__(self, reason: AbortReason, words: str = "") -> None:
        super().__init__(words or reason.name.lower().replace("_", " "))
        self.reason = reason


class PeerAborted(ConnectionAbortedError):
    """The peer broke the association off in the middle of a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a sender is waited for."""

    stall_seconds: float = 20.0
    """How long it may be silent in the middle of something, or before its association request."""
    idle_seconds: float = 60.0
    """How long it may be silent between two messages."""
    minimum_bytes_per_second: float = 1024.0
    """One that takes longer than `stall_seconds` over a message and is slower than this only holds a place."""


class Wire:
    """One connection. Whatever it hands out as a view is good until the next call."""

    def __init__(self, connection: socket.socket, patience: Patience) -> None:
        self._connection = connection
        self._patience = patience
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0
        self._came = 0
        self._since = monotonic()
        self.is_between_messages = False
        """Whether nothing is under way, so that the peer may leave."""
        connection.settimeout(self._patience.stall_seconds)

    def next_pdu(self, *, patient: bool = False) -> tuple[int, int]:
        """Wait for a PDU's header; answer its type and the length of what follows.

        Parameters
        ----------
        patient
            Whether nothing is under way, so that the peer may be silent for longer.

        Raises
        ------
        TimeoutError
            The peer was silent for too long, or is too slow.
        ConnectionError
            It is gone.
        """
        if patient:
            if self._start == self._end:
                self._connection.settimeout(self._patience.idle_seconds)
                self.is_between_messages = True
                try:
                    self._fill(1)
                finally:
                    self._connection.settimeout(self._patience.stall_seconds)
                self.is_between_messages = False
            self._since, self._came = monotonic(), 0
        kind, length = _HEADER.unpack(self.exactly(_HEADER.size))
        return kind, length

    def exactly(self, count: int) -> memoryview:
        """The next so many bytes, a few: at most what the buffer holds."""
        if self._end - self._start < count:
            self._fill(count)
        view = self._buffer[self._start : self._start + count]
        self._start += count
        return view

    def some(self, most: int) -> memoryview:
        """The next bytes, at least one, as many as are here."""
        if self._start == self._end:
            self._fill(1)
        stop = min(self._start + most, self._end)
        view = self._buffer[self._start : stop]
        self._start = stop
        return view

    def send(self, encoded: bytes) -> None:
        """Send, or raise `TimeoutError` where the peer does not read."""
        self._connection.sendall(encoded)

    def _fill(self, count: int) -> None:
        """Read until so many bytes are here."""
        waiting = self._end - self._start
        if waiting == 0 or len(self._buffer) - self._start < count:
            self._buffer[:waiting] = self._buffer[self._start : self._end]
            self._start, self._end = 0, waiting
        while self._end - self._start < count:
            received = self._connection.recv_into(self._buffer[self._end :])
            if received == 0:
                raise ConnectionError("The peer closed the connection.")
            self._end += received
            self._came += received
            self._require_progress()

    def _require_progress(self) -> None:
        lasts = monotonic() - self._since
        if lasts > self._patience.stall_seconds and self._came < lasts * self._patience.minimum_bytes_per_second:
            raise TimeoutError


def encode_abort(reason: AbortReason) -> bytes:
    """The A-ABORT of the service provider (PS3.8 section 9.3.8)."""
    return struct.pack(">BxIxxBB", Pdu.ABORT, 4, 2, reason)
