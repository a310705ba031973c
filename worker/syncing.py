"""Syncs that go on meanwhile: the C library's own threads do them (aio_fsync(3)), which need no turn of Python's."""

import ctypes
import errno
import os
from typing import Final

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


# What returns at once keeps Python's lock: to give it away and take it again would cost more. To wait gives it away.
_at_once: Final = ctypes.PyDLL(None, use_errno=True)
_waiting: Final = ctypes.CDLL(None, use_errno=True)


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
        self._is_under_way = _at_once.aio_fsync(os.O_SYNC, self._pointer) == 0

    def wait(self) -> None:
        """Return when it is durable. To ask again gives the same answer, which the kernel would not.

        Raises
        ------
        OSError
            It could not be made durable.
        """
        if not self._is_over:
            try:
                self._end()
            except OSError as error:
                self._error = error
            self._is_over = True
        if self._error is not None:
            raise self._error

    def _end(self) -> None:
        if not self._is_under_way:
            os.fsync(self._descriptor)
            return
        while (failure := _at_once.aio_error(self._pointer)) == errno.EINPROGRESS:
            _waiting.aio_suspend(self._waited_for, 1, None)
        _at_once.aio_return(self._pointer)
        if failure:
            raise OSError(failure, os.strerror(failure))
