"""Taking rights away from the process that decodes, for good: code that runs in it finds no file, no socket and nobody else.

The kernel keeps two locks: no descriptor more may be opened, and, where it is there, Landlock (landlock(7)).
"""

import ctypes
import os
import resource
import sys
from typing import Final

_CREATE_RULESET: Final = 444  # system calls have one number everywhere since Linux 5.1
_RESTRICT_SELF: Final = 446
_VERSION_OF_LANDLOCK: Final = 1
_SET_NO_NEW_PRIVILEGES: Final = 38

_FILES: Final = (1 << 13) - 1
_FILES_SINCE: Final = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""Move between folders, truncate, ask devices."""
_NETWORK_SINCE: Final = 4
_BIND_AND_CONNECT_TCP: Final = 0b11
_SCOPES_SINCE: Final = 6
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11


class _Ruleset(ctypes.Structure):
    """``struct landlock_ruleset_attr``: what is forbidden unless a rule allows it."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


def landlock_version() -> int:
    """Which version of Landlock's interface the kernel has, or 0 where it has none."""
    if not sys.platform.startswith("linux"):
        return 0
    answer = _library().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_OF_LANDLOCK))
    return max(0, int(answer))


def confine() -> None:
    """Let this process, which must have one thread, use its memory and the descriptors that it has, and nothing else.

    Modules that are not loaded by now cannot be.

    Raises
    ------
    OSError
        The kernel knows Landlock and does not apply it.
    """
    if version := landlock_version():
        _apply_landlock(version)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _apply_landlock(version: int) -> None:
    forbidden = _Ruleset(
        files=_FILES | sum(right for since, right in _FILES_SINCE.items() if version >= since),
        network=_BIND_AND_CONNECT_TCP if version >= _NETWORK_SINCE else 0,
        scopes=_ABSTRACT_SOCKETS_AND_SIGNALS if version >= _SCOPES_SINCE else 0,
    )
    library = _library()
    # A kernel that knows less of the structure takes what it does not know only where it is zero.
    ruleset = library.syscall(_CREATE_RULESET, ctypes.byref(forbidden), ctypes.c_size_t(ctypes.sizeof(forbidden)), 0)
    if ruleset < 0:
        raise _error()
    try:
        if library.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or library.syscall(_RESTRICT_SELF, ruleset, 0):
            raise _error()
    finally:
        os.close(ruleset)


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
