"""How many associations may be open at a time."""

from collections import Counter
from threading import Lock

from dicom_io.keeper import Caller
from dicom_io.negotiation import Refusal


class Places:
    """The places for associations, in all and of one caller, for every port that shares them.

    Parameters
    ----------
    at_once
        In all.
    of_one_caller
        Of one calling AE title at one address; 0: as many as there are.
    """

    def __init__(self, at_once: int = 64, of_one_caller: int = 0) -> None:
        self._at_once = at_once
        self._of_one_caller = of_one_caller
        self._taken: Counter[tuple[str, str]] = Counter()
        self._guard = Lock()

    def take(self, caller: Caller) -> Refusal | None:
        """Take a place, which must be left again, or say why there is none."""
        key = _key(caller)
        with self._guard:
            if self._taken.total() >= self._at_once:
                return Refusal.TOO_MANY
            if 0 < self._of_one_caller <= self._taken[key]:
                return Refusal.TOO_MANY_OF_CALLER
            self._taken[key] += 1
            return None

    def leave(self, caller: Caller) -> None:
        """Give it back."""
        key = _key(caller)
        with self._guard:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]


def _key(caller: Caller) -> tuple[str, str]:
    return caller.calling_ae_title, caller.peer_address
