"""Connections that wait in the lobby: how much each has said, and the rows in which they stand."""

import socket
from collections import Counter
from dataclasses import dataclass, field
from itertools import takewhile
from time import monotonic

from dicom_io.wire import AbortReason, Pdu, ProtocolError

LONGEST_REQUEST_BYTES = 256 * 1024
"""128 contexts with all 39 transfer syntaxes that pydicom knows have 138 KB, a user identity up to 64 KB more."""
_HEADER_BYTES = 6


@dataclass(slots=True, eq=False)
class Guest:
    """A connection whose request is not whole yet."""

    connection: socket.socket
    address: str
    is_welcome: bool
    row: "Row"
    since: float = 0.0
    descriptor: int = -1
    has_spoken: bool = False
    is_secure: bool = False
    said: bytearray = field(default_factory=bytearray)

    def missing(self) -> int:
        """How many bytes are still to come, as far as is known: of the header, then of the whole request.

        Raises
        ------
        ProtocolError
            It is no association request, or an absurd one.
        """
        said = self.said
        if said and said[0] != Pdu.ASSOCIATE_RQ:
            reason = AbortReason.UNEXPECTED_PDU if said[0] in set(Pdu) else AbortReason.UNRECOGNIZED_PDU
            raise ProtocolError(reason, "it begins with no association request: is that DICOM, and without TLS?")
        if len(said) < _HEADER_BYTES:
            return _HEADER_BYTES - len(said)
        length = int.from_bytes(said[2:_HEADER_BYTES], "big")
        if length > LONGEST_REQUEST_BYTES:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, f"an association request of {length} bytes")
        return _HEADER_BYTES + length - len(said)


class Row:
    """Connections that wait for the same thing, the oldest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._guests: dict[Guest, None] = {}
        self._of: Counter[str] = Counter()

    def add(self, guest: Guest) -> Guest | None:
        """Take one more; answer who has to make place for it."""
        guest.since = monotonic()
        self._guests[guest] = None
        self._of[guest.address] += 1
        if len(self._guests) <= self._most:
            return None
        crowd = max(self._of, key=self._of.__getitem__)
        return next(each for each in self._guests if each.address == crowd)

    def remove(self, guest: Guest) -> None:
        """Take one out; an error of ours can have done so already."""
        if guest in self._guests:
            del self._guests[guest]
            self._of[guest.address] -= 1
            if not self._of[guest.address]:
                del self._of[guest.address]

    def everybody(self) -> list[Guest]:
        """All of them, the oldest first."""
        return [*self._guests]

    def since_before(self, moment: float) -> list[Guest]:
        """Those that have waited since a moment of the monotonic clock or longer."""
        return [*takewhile(lambda guest: guest.since <= moment, self._guests)]
