"""Syncs that go on meanwhile: the C library's own threads do them (aio_fsync(3)), which need no turn of Python's."""

import ctypes
import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

_SIGEV_NONE = 1


class _Control(ctypes.Structure):
    """Linux's ``struct aiocb``, of which a sync uses the beginning; glibc and musl need 168 bytes of it."""

    _fields_ = (
        ("descriptor", ctypes.c_int),
        ("operation", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("signal_value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


class _Seconds(ctypes.Structure):
    """``struct timespec``."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _timespec(seconds: float) -> Any:
    return ctypes.byref(_Seconds(int(seconds), int(seconds % 1 * 1e9)))


class NotYet(Exception):
    """A sync still goes on."""


def _find(names: Sequence[str | None]) -> tuple[ctypes.PyDLL, ctypes.CDLL] | None:
    """The library that has it, twice: what returns at once keeps Python's lock, which costs less; to wait gives it away."""
    for name in names:
        with suppress(OSError, AttributeError):
            at_once = ctypes.PyDLL(name)
            at_once.aio_fsync  # noqa: B018  it raises where the library has none
            return at_once, ctypes.CDLL(name)
    return None


_library: Final = _find((None, "librt.so.1"))
"""glibc has it beside the rest since 2.34. None: syncs are done where they are waited for."""
_going_on: Final[set["Sync"]] = set()
"""The library writes to what these hold: they stay, also where nobody came to wait for them."""


class Sync:
    """The sync of an open file or folder. Once begun, keep it and `wait` before the descriptor is closed, whatever happens."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._error: OSError | None = None
        self._is_under_way = self._is_over = False
        self._control = _Control(descriptor=descriptor, notify=_SIGEV_NONE)
        self._pointer = ctypes.byref(self._control)
        self._waited_for = (ctypes.c_void_p * 1)(ctypes.addressof(self._control))

    def begin(self) -> None:
        """Let it go on from now on; where the system has no thread for it, `wait` does all of it."""
        if _library is not None:
            _going_on.add(self)
            self._is_under_way = _library[0].aio_fsync(os.O_SYNC, self._pointer) == 0
            if not self._is_under_way:
                _going_on.discard(self)

    def wait(self, seconds: float | None = None) -> None:
        """Return when it is durable. To ask again gives the same answer, which the kernel would not.

        Parameters
        ----------
        seconds
            How long to wait at most, where it goes on meanwhile; None: for as long as it takes.

        Raises
        ------
        OSError
            It could not be made durable.
        NotYet
            It still goes on.
        """
        if not self._is_over:
            try:
                self._end(seconds)
            except OSError as error:
                self._error = error
            self._is_over = True
        if self._error is not None:
            raise self._error

    def _end(self, seconds: float | None) -> None:
        if _library is None or not self._is_under_way:
            os.fsync(self._descriptor)
            return
        at_once, waiting = _library
        until = None if seconds is None else monotonic() + seconds
        while (failure := at_once.aio_error(self._pointer)) == errno.EINPROGRESS:
            left = None if until is None else until - monotonic()
            if left is not None and left <= 0:
                raise NotYet
            waiting.aio_suspend(self._waited_for, 1, None if left is None else _timespec(left))
        at_once.aio_return(self._pointer)
        _going_on.discard(self)
        if failure:
            raise OSError(failure, os.strerror(failure))
