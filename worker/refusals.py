"""How many refusals of one address become events: a stranger who knocks all day must not fill the record."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock

PER_MINUTE = 20
"""Refusals of one address that are noted within a minute; the log and the figures have all of them."""
_ADDRESSES = 1024
_MINUTE = timedelta(minutes=1)


@dataclass(slots=True)
class _Minute:
    began: datetime
    count: int = 0


class Refusals:
    """Counts refusals of each address. Called by many threads at once.

    Parameters
    ----------
    clock
        Gives the moment.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._minutes: dict[str, _Minute] = {}

    def noted(self, address: str) -> str | None:
        """Count a refusal: what its event says beside its own words, mostly nothing; None where there is to be no event."""
        now = self._clock()
        with self._lock:
            minute = self._minutes.get(address)
            ended = minute is not None and not timedelta() <= now - minute.began < _MINUTE  # or the clock was set back
            silent = minute.count - PER_MINUTE if minute is not None and ended else 0
            if minute is None or ended:
                if minute is None and len(self._minutes) >= _ADDRESSES:
                    del self._minutes[next(iter(self._minutes))]
                minute = self._minutes[address] = _Minute(began=now)
            minute.count += 1
            if minute.count > PER_MINUTE:
                return None
        return f" ({silent} more before were not noted)" if silent > 0 else ""
