"""The thread that empties a journal: each object gets a file of its own, then its room in the journal is free."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread

import structlog

from worker.files import PartFile
from worker.journal.journal import Entry, Journal
from worker.steps.store import place_of

log = structlog.get_logger()

_AT_ONCE = 32
_PAUSE_SECONDS = 1.0


class Settler:
    """Works until `close`.

    Parameters
    ----------
    journal
        Which one.
    data_dir
        Where the files go.
    make_rows_durable
        Called before the journal forgets objects: until then it is what gives them their rows again after a power cut.
    tell
        Told how many objects wait for a file, and for how many seconds the oldest has.
    """

    def __init__(
        self, journal: Journal, data_dir: Path, *, make_rows_durable: Callable[[], None], tell: Callable[[int, float], None]
    ) -> None:
        self._journal = journal
        self._data_dir = data_dir
        self._make_rows_durable = make_rows_durable
        self._tell = tell
        self._closing = Event()
        self._is_failing = False
        self._thread = Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Empty it, and end; where the disk does not let it, what is left waits for the next start."""
        self._closing.set()
        self._journal.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            is_last = self._closing.is_set()
            self._journal.extend()
            entries = self._journal.due(_AT_ONCE)
            try:
                if entries:
                    settle(entries, self._data_dir)
                self._journal.recycle(self._make_rows_durable)
                self._is_failing = False
            except Exception as error:  # noqa: BLE001  the thread's boundary: what waits is in the journal, and is tried again
                self._journal.put_back([entry for entry in entries if not entry.is_settled])
                if not self._is_failing:  # once, not every second
                    count, _ = self._journal.waiting
                    log.error("journal.not_emptied", error=type(error).__name__, count=count)  # noqa: TRY400
                self._is_failing = True
                self._closing.wait(_PAUSE_SECONDS)
            self._tell(*self._journal.waiting)
            if is_last and (self._is_failing or not entries):
                return


def settle(entries: Sequence[Entry], data_dir: Path) -> None:
    """Write objects that are in a journal to durable files of their own.

    Raises
    ------
    OSError
        Not all of them could be written.
    """
    with ExitStack() as stack:
        parts = []
        for entry in entries:
            path = data_dir / place_of(entry.record.sha256)
            part = PartFile(path.parent, unnamed=True)
            stack.callback(part.discard)
            part.write(entry.segment.file_of(entry.record))
            part.date(entry.record.at)
            part.name_by_content(path)
            parts.append(part)
        for entry, part in zip(entries, parts, strict=True):
            part.make_durable()
            entry.settled()
