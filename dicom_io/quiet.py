"""Keeps pydicom silent while it reads what a stranger sent: its warnings quote values, which may be a patient's."""

import logging
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from types import TracebackType

_PYDICOM = logging.getLogger("pydicom")


class _Quiet(AbstractContextManager[None]):
    """Silence that threads may share.

    Warning filters belong to the process, and `warnings.catch_warnings` in overlapping threads can leave the wrong ones behind.
    So the first to enter silences and the last to leave restores.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._restore: list[Callable[[], object]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                caught, propagate = warnings.catch_warnings(), _PYDICOM.propagate
                caught.__enter__()
                warnings.simplefilter("ignore")
                _PYDICOM.propagate = False  # its own handler is a null handler; its children pass through it
                self._restore = [lambda: caught.__exit__(None, None, None), lambda: setattr(_PYDICOM, "propagate", propagate)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for restore in self._restore:
                    restore()


quietly = _Quiet()
"""``with quietly:`` around every call that makes pydicom parse or convert a value."""
