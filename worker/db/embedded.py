"""The files of an embedded database: who may read them, and that nobody replaces one that somebody has open."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path

from worker.errors import AnotherRunner, DatabaseUnavailable
from worker.locks import held_alone, held_with_others

_MODE = 0o600


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Have an embedded database for oneself: nobody has it open, and nobody can open it meanwhile.

    Raises
    ------
    AnotherRunner
        Somebody has it open.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(held_alone(_lock_of(path)))
        except BlockingIOError as error:
            raise AnotherRunner(
                "The database is open: stop 'serve', 'receive', 'run' and 'web', and let other commands end, first."
            ) from error
        except OSError:
            pass  # a file system without locks: its caller sees what SQLite tells
        yield


def share(path: Path) -> int | None:
    """Have an embedded database with others, so that nobody replaces it meanwhile; None where there can be no lock."""
    try:
        return held_with_others(_lock_of(path))
    except BlockingIOError as error:
        raise DatabaseUnavailable(
            "'cxr-worker db restore' puts another database in this place: wait until it has ended."
        ) from error
    except OSError:  # of a file system that knows none, or is not ours to write: work goes on
        return None


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def files_at(path: Path) -> list[Path]:
    """What there is of one: itself, its log, its lock, and what a restore kept of those before it."""
    beside = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", ".lock")]
    return [*filter(Path.exists, beside), *path.parent.glob(f"{escape(path.name)}.before-*")]


def hide(path: Path) -> None:
    """Let nobody else read a database; SQLite would make it readable to all, and gives its log the mode of the database."""
    with suppress(OSError):  # connecting tells what is wrong
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE))  # to close it again would end SQLite's locks on it
    for file in files_at(path):
        with suppress(OSError):  # somebody else's
            if file.is_file() and file.stat().st_mode & ~_MODE & 0o777:
                file.chmod(_MODE)
