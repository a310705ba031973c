"""Journals without a receiver: small ones, and what is written to them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from worker.journal.journal import Entry, Journal
from worker.journal.owned import owned
from worker.journal.segment import Content, Segment
from worker.pipeline import Parts

SEGMENT_BYTES = 64 * 1024
AT = 1_764_576_000.25


def content(dataset: bytes, *, file_meta: bytes = b"meta", at: float = AT, peer_address: str = "192.0.2.7") -> Content:
    """An object that is to be recorded."""
    return Content(
        sha256=hashlib.sha256(dataset).hexdigest(),
        file_meta=file_meta,
        dataset=memoryview(dataset),
        at=at,
        peer_address=peer_address,
    )


def small_journal(folder: Path, *, segments: int = 2) -> Journal:
    """A journal that is soon full."""
    folder.mkdir(parents=True, exist_ok=True)
    return Journal(folder, most_bytes=segments * SEGMENT_BYTES, segment_bytes=SEGMENT_BYTES)


def kept(journal: Journal, dataset: bytes) -> Entry:
    """Record an object as a receiver does, up to its row."""
    entry = journal.append(content(dataset))
    assert entry is not None
    entry.begin()
    entry.wait()
    entry.keep()
    return entry


def told(folder: Path) -> list[bytes]:
    """What stands in the journals of a folder, by the bytes of the objects' files."""
    return [file for path in sorted(folder.rglob("*.segment")) for file in read(path)]


def read(path: Path) -> list[bytes]:
    """What stands in a segment."""
    segment = Segment(path)
    try:
        return [segment.file_of(record) for record in segment.records()]
    finally:
        segment.close()


def nothing() -> None:
    """Rows that are durable already."""


@contextmanager
def receiver_that_is_killed(parts: Parts) -> Iterator[Parts]:
    """A receiver that gives nothing a file: what it takes in stays in its journal, and its lock goes with it."""
    with owned(parts.data_dir) as folder:
        journal = Journal(folder, most_bytes=4 * 1024 * 1024, segment_bytes=1024 * 1024)
        yield replace(parts, journal=journal)
        journal.remove()
