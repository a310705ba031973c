"""Locks on files that go with their holder, and that no other account can take."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MODE = 0o600
_OPENED = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC  # programs that are started must not go on holding it


def open_lock(path: Path) -> int:
    """Open the file of a lock, which is made if it is missing. It is for our account alone: whoever may read it may lock it.

    Raises
    ------
    OSError
        It cannot be made, or belongs to somebody else.
    """
    try:
        descriptor = os.open(path, _OPENED | os.O_CREAT | os.O_EXCL, _MODE)
        if os.geteuid() == 0:  # a command that root ran first must not leave the worker's account without it
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except FileExistsError:
        descriptor = os.open(path, _OPENED)
        try:
            if os.fstat(descriptor).st_mode & 0o777 != _MODE:
                os.fchmod(descriptor, _MODE)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor


@contextmanager
def held_alone(path: Path) -> Iterator[None]:
    """Hold a lock, and nobody else.

    Raises
    ------
    BlockingIOError
        Somebody else holds it.
    OSError
        There can be none.
    """
    descriptor = _locked(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def held_with_others(path: Path) -> int:
    """Hold a lock that others hold too, until what is answered is closed.

    Raises
    ------
    BlockingIOError
        Somebody holds it alone.
    OSError
        There can be none.
    """
    return _locked(path, fcntl.LOCK_SH)


def _locked(path: Path, how: int) -> int:
    descriptor = open_lock(path)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
