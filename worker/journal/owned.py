"""Whose journal is whose: each receiver has a folder of its own, which it holds by a lock that goes with its process."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count as counting
from pathlib import Path

from worker.files import make_folder, write_durably
from worker.journal.segment import Record, Segment, is_whole
from worker.locks import held_alone

FOLDER = Path("journals")
"""Where in the data folder they are."""
_LOCK = "lock"
_SEGMENTS = "*.segment"


@contextmanager
def owned(data_dir: Path) -> Iterator[Path]:
    """Have an empty folder for a journal that nobody else has.

    Raises
    ------
    OSError
        There can be none: the disk is full, or knows no locks.
    """
    for number in counting():
        folder = data_dir / FOLDER / str(number)
        make_folder(folder)
        with ExitStack() as stack:
            try:
                stack.enter_context(held_alone(folder / _LOCK))
            except BlockingIOError:
                continue
            if segments_in(folder):  # of one that was killed, and that nobody could replay yet
                continue
            yield folder
            return


@contextmanager
def abandoned(data_dir: Path) -> Iterator[list[Path]]:
    """Hold every folder whose receiver is gone and left something.

    Raises
    ------
    OSError
        A lock cannot be had.
    """
    with ExitStack() as stack:
        held = []
        for folder in folders(data_dir):
            with suppress(BlockingIOError):
                if segments_in(folder):
                    stack.enter_context(held_alone(folder / _LOCK))
                    held.append(folder)
        yield held


def folders(data_dir: Path) -> list[Path]:
    """Every journal's folder."""
    return sorted(path for path in (data_dir / FOLDER).glob("*") if path.is_dir())


def segments_in(folder: Path) -> list[Path]:
    """The files of its segments."""
    return sorted(folder.glob(_SEGMENTS))


def count(folder: Path) -> int:
    """How many objects stand in its journal.

    Raises
    ------
    OSError
        It cannot be read.
    """
    return sum(1 for path in segments_in(folder) for _ in _records(path))


def is_held(folder: Path) -> bool:
    """Whether the receiver whose it is works."""
    try:
        with held_alone(folder / _LOCK):
            return False
    except BlockingIOError:
        return True


def recorded(data_dir: Path, wanted: set[str]) -> Iterator[tuple[str, bytes, float]]:
    """Those of some objects that stand whole in any journal: SHA-256, the file's bytes, and when it came.

    The journals may be at work meanwhile. What they cease to hold has a file.

    Raises
    ------
    OSError
        The disk did not give it.
    """
    for path in (path for folder in folders(data_dir) for path in segments_in(folder)):
        for segment, record in _records(path):
            if record.sha256 in wanted and is_whole(file := segment.file_of(record), record):
                yield record.sha256, file, record.at


def _records(path: Path) -> Iterator[tuple[Segment, Record]]:
    try:
        segment = Segment(path)
    except FileNotFoundError:  # its receiver has ended
        return
    with closing(segment):
        for record in segment.records():
            yield segment, record


def give_files(data_dir: Path, missing: dict[str, Path]) -> None:
    """Write the files of objects that stand in a journal, whoever's it is; what stands in none is passed over.

    Parameters
    ----------
    data_dir
        The data folder.
    missing
        Where they belong, by SHA-256 (`worker.steps.store.place_of`).

    Raises
    ------
    OSError
        A file could not be made.
    """
    for sha256, file, at in recorded(data_dir, set(missing)):
        write_durably(missing[sha256], (file,), moment=at)
