"""Replay: what a receiver that was killed, or lost its power, left in its journal becomes files and rows."""

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from worker.db import files
from worker.files import write_durably
from worker.journal.owned import FOLDER, abandoned, segments_in
from worker.journal.segment import Record, Segment, is_whole
from worker.keeping.entering import Came, enter
from worker.locks import held_alone
from worker.pipeline import Parts
from worker.steps.store import is_undamaged, place_of
from worker.values import StoredFile

log = structlog.get_logger()

_LOCK = "replay.lock"


@dataclass(frozen=True, slots=True)
class _Left:
    """An object that was left in a journal."""

    segment: Segment
    record: Record


def replay(parts: Parts) -> int:
    """Give what was left in journals files and rows, in the order it came, then delete it there; answer how much it was.

    What has both stays as it is; a file that was deleted on purpose is not made again. An object whose sender was told nothing,
    since the receiver ended too soon, is entered too: it may be sent again.

    Raises
    ------
    OSError
        A file could not be made: everything is still there.
    worker.errors.DatabaseUnavailable
        Likewise.
    """
    if not (parts.data_dir / FOLDER).is_dir():
        return 0
    with ExitStack() as stack:
        try:
            stack.enter_context(held_alone(parts.data_dir / FOLDER / _LOCK))
        except BlockingIOError:  # another process is at it
            return 0
        paths = [path for folder in stack.enter_context(abandoned(parts.data_dir)) for path in segments_in(folder)]
        left: list[_Left] = []
        for path in paths:
            segment = Segment(path)
            stack.callback(segment.close)
            left += (_Left(segment, record) for record in segment.records())
        left.sort(key=lambda each: each.record.at)
        count = sum(_repeat(each, parts) for each in left)
        _put_in_order(left, parts)
        parts.database.make_durable()  # also the rows that needed no repetition
        for path in paths:
            path.unlink()
    if paths:
        log.info("journal.replayed", count=count)
    return count


def _repeat(left: _Left, parts: Parts) -> bool:
    """Answer whether it stood there whole."""
    record = left.record
    path = place_of(record.sha256)
    file = left.segment.file_of(record)
    if not is_whole(file, record):
        log.warning("journal.record_broken", where=str(path))  # its sender heard nothing, or the disk is damaged
        return False
    with parts.database.read() as connection:
        rows = list(files.received(connection, sha256_begins=record.sha256))
    if rows and all(row.gone for row in rows):
        return True
    stored = StoredFile(path=path, sha256=record.sha256, size=record.dataset_bytes)
    if not is_undamaged(parts.data_dir / path, stored):
        write_durably(parts.data_dir / path, (file,), moment=record.at)
    if not rows:
        enter(path, parts, _came(record))
    return True


def _put_in_order(left: list[_Left], parts: Parts) -> None:
    """Have what came last for an object count, also where it had come before, and only that is committed."""
    seen = set()
    for record in (each.record for each in reversed(left)):
        with parts.database.read() as connection:
            newest = files.newest_beside(connection, record.sha256)
        if newest is None or newest[0] in seen:
            continue
        uid, sha256, first_came = newest
        seen.add(uid)
        if sha256 != record.sha256 and first_came <= _came(record).at:
            enter(place_of(record.sha256), parts, _came(record))


def _came(record: Record) -> Came:
    return Came(at=datetime.fromtimestamp(record.at, UTC), peer_address=record.peer_address)
