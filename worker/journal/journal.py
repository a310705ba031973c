"""The journal of one receiver: what came lately, durable in segments, until each object has a file of its own.

A segment is free, or current, or full; it is free again when every object in it has a file, was taken back, or is known
elsewhere. The thread of an association calls `append` and then, of the entry, `begin`, `wait`, and `keep` or `void`; the thread
that empties the journal (`worker.journal.settler`) the rest.
"""

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Condition, Lock
from time import monotonic

import structlog

from worker.journal.segment import SEGMENT_BYTES, Content, Record, Segment
from worker.syncing import Sync

log = structlog.get_logger()

_QUIET_SECONDS = 0.25
"""For so long no object may have come before files are made, which takes disk and processor from senders."""
_LONGEST_SECONDS = 2.0
"""For so long an object waits for its file at most."""
_SPARE = 2
"""Segments that are ready to be filled."""


class _Filled:
    """A segment that objects are written to, and who waits for what of it."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.needed = 0
        """Objects that have no file yet."""
        self.unflushed: list[Entry] = []
        self.is_sound = True


class Journal:
    """Takes objects from many threads.

    Parameters
    ----------
    folder
        An empty folder, and nobody else's (`worker.journal.owned`).
    most_bytes
        How much of the disk it may take; two segments at least.
    spare_bytes
        How much must stay free.
    segment_bytes
        How long each of its files is.
    """

    def __init__(self, folder: Path, *, most_bytes: int, spare_bytes: int = 0, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._most = max(_SPARE, most_bytes // segment_bytes)
        self._spare_bytes = spare_bytes
        self._guard = Lock()
        self._changed = Condition(self._guard)
        self._current: _Filled | None = None
        self._free: deque[Segment] = deque()
        self._filled: list[_Filled] = []
        """Those that hold objects, the current one too."""
        self._due: deque[Entry] = deque()
        self._last_came = 0.0
        self._made = self._segments = 0
        self._is_closed = False
        while self.extend():
            pass

    def append(self, content: Content) -> "Entry | None":
        """Write an object down; None where there is no room, so that it needs a file at once. `Entry.wait` makes it durable.

        Raises
        ------
        OSError
            The disk did not take it.
        """
        with self._guard:
            place = self._place_for(content)
            if place is None:
                return None
            filled, offset = place
            filled.needed += 1
            self._last_came = monotonic()
        try:
            entry = Entry(self, filled, filled.segment.write(offset, content))
        except OSError:
            self.forget(filled)
            self.distrust(filled)
            raise
        with self._guard:
            filled.unflushed.append(entry)
        return entry

    def _place_for(self, content: Content) -> tuple[_Filled, int] | None:
        """With the guard held."""
        if self._current is not None and (offset := self._current.segment.reserve(content)) is not None:
            return self._current, offset
        if self._is_closed or not self._free:
            return None
        offset = self._free[0].reserve(content)
        if offset is None:  # larger than a segment
            return None
        self._current = _Filled(self._free.popleft())
        self._filled.append(self._current)
        self._changed.notify()  # another one is to be made ready
        return self._current, offset

    def flush(self, entry: "Entry") -> "Flush":
        """Begin to make an object durable, and with it whatever else was written to its segment by now."""
        with self._guard:
            if entry.flush is None:
                flush = Flush(entry.filled.segment.descriptor)
                for each in entry.filled.unflushed:
                    each.flush = flush
                entry.filled.unflushed.clear()
                flush.begin()
                entry.flush = flush
            return entry.flush

    def keep(self, entry: "Entry") -> None:
        """An object has its row: it shall have a file."""
        with self._guard:
            entry.since = monotonic()
            self._due.append(entry)
            if len(self._due) == 1:
                self._changed.notify()

    def forget(self, filled: _Filled) -> None:
        """One object of a segment is not needed there any more."""
        with self._guard:
            filled.needed -= 1

    def distrust(self, filled: _Filled) -> None:
        """Write nothing more to a segment: its disk failed."""
        with self._guard:
            filled.is_sound = False
            if filled is self._current:
                self._current = None

    @property
    def waiting(self) -> tuple[int, float]:
        """How many objects have no file yet, and for how many seconds the oldest has waited."""
        with self._guard:
            return (len(self._due), monotonic() - self._due[0].since) if self._due else (0, 0.0)

    def due(self, most: int) -> "list[Entry]":
        """Wait until some objects should have their files; answer them, or none when it is time to look after segments."""
        with self._changed:
            if not self._is_closed and (seconds := self._due_in()) > 0:
                self._changed.wait(seconds)
            if not self._is_closed and self._due_in() > 0:
                return []
            return [self._due.popleft() for _ in range(min(most, len(self._due)))]

    def _due_in(self) -> float:
        """In how many seconds files should be made; with the guard held."""
        if not self._due:
            return _LONGEST_SECONDS if self._current is None else _QUIET_SECONDS
        if self._segments == self._most and len(self._free) < self._most // 2:
            return 0.0
        now = monotonic()
        return min(self._last_came + _QUIET_SECONDS, self._due[0].since + _LONGEST_SECONDS) - now

    def put_back(self, entries: "list[Entry]") -> None:
        """Their files could not be made: later, then."""
        with self._guard:
            self._due.extendleft(reversed(entries))

    def extend(self) -> bool:
        """Make one more segment where too few are free and there may be more; answer whether one was made."""
        with self._guard:
            if len(self._free) >= _SPARE or self._segments >= self._most or self._is_closed:
                return False
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < self._spare_bytes + self._segment_bytes:
            return False
        try:
            segment = Segment.make(self._folder / f"{self._made:06d}.segment", size=self._segment_bytes)
        except OSError as error:
            log.warning("journal.not_extended", error=type(error).__name__)
            return False
        with self._guard:
            self._made += 1
            self._segments += 1
            self._free.append(segment)
        return True

    def recycle(self, make_rows_durable: Callable[[], None]) -> None:
        """Free the segments that hold nothing that is needed: while nothing comes, all of them.

        Raises
        ------
        OSError
            The disk failed.
        """
        with self._guard:
            current = self._current
            is_quiet = self._is_closed or monotonic() - self._last_came > _QUIET_SECONDS
            if current is not None and current.needed == 0 and is_quiet:
                self._current = None
            empty = [each for each in self._filled if each.needed == 0 and each is not self._current]
        if not empty:
            return
        make_rows_durable()  # soon nobody can make them again
        for filled in empty:
            if filled.is_sound:
                filled.segment.renew()
            else:
                filled.segment.remove()
            with self._guard:
                self._filled.remove(filled)
                if filled.is_sound:
                    self._free.append(filled.segment)
                else:
                    self._segments -= 1

    def close(self) -> None:
        """Take no more; what waits is due at once."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def remove(self) -> None:
        """Let go of the segments of one that was closed, and delete those that hold nothing that is needed."""
        for segment in self._free:
            segment.remove()
        for filled in self._filled:
            filled.segment.close()


class Flush:
    """A sync of a segment that several threads may wait for."""

    def __init__(self, descriptor: int) -> None:
        self._sync = Sync(descriptor, data_only=True)
        self._turn = Lock()
        self.begin = self._sync.begin

    def wait(self, seconds: float | None) -> None:
        """As of `worker.syncing.Sync.wait`."""
        with self._turn:
            self._sync.wait(seconds)


class Entry:
    """An object in the journal."""

    def __init__(self, journal: Journal, filled: _Filled, record: Record) -> None:
        self._journal = journal
        self.filled = filled
        self.record = record
        self.flush: Flush | None = None
        self.since = 0.0
        """When it was kept, by the monotonic clock."""
        self.is_settled = False

    @property
    def segment(self) -> Segment:
        """Where it is."""
        return self.filled.segment

    def begin(self) -> None:
        """Begin to make it durable."""
        self._journal.flush(self)

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it is durable.

        Raises
        ------
        OSError
            It is not.
        worker.syncing.NotYet
            It is not known yet.
        """
        try:
            self._journal.flush(self).wait(seconds)
        except OSError:
            self._journal.distrust(self.filled)
            raise

    def keep(self) -> None:
        """Have it given a file: its row is committed."""
        self._journal.keep(self)

    def settled(self) -> None:
        """It has a durable file."""
        self.is_settled = True
        self._journal.forget(self.filled)

    def void(self) -> None:
        """Have it count no more: its sender was not told of success."""
        try:
            if self.flush is not None:
                self.flush.wait(None)  # what the disk writes now may not change under it
            self.segment.void(self.record)
        except OSError:
            self._journal.distrust(self.filled)
        self._journal.forget(self.filled)
