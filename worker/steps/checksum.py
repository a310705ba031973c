"""The checksum of what comes; of what is long a thread of its own takes it, while the rest still comes and is written."""

import hashlib
from queue import SimpleQueue
from threading import BoundedSemaphore, Thread

_LONG_BYTES = 1024 * 1024
"""From here on a thread is worth its start."""
_AT_ONCE = 8
"""Fragments that wait: beyond it the sender waits, and the memory does not grow."""


class Checksum:
    """SHA-256. End it with `hexdigest` or `close`."""

    def __init__(self) -> None:
        self._checksum = hashlib.sha256()
        self._size = 0
        self._fragments: SimpleQueue[bytes | None] = SimpleQueue()
        self._room = BoundedSemaphore(_AT_ONCE)
        self._thread: Thread | None = None

    def update(self, fragment: bytes | memoryview) -> None:
        """Take the next bytes. Their memory may be used for others afterwards."""
        self._size += len(fragment)
        if self._size <= _LONG_BYTES or not self._has_thread():
            self._checksum.update(fragment)
            return
        self._room.acquire()
        self._fragments.put(bytes(fragment))

    def hexdigest(self) -> str:
        """The checksum of all that came."""
        self.close()
        return self._checksum.hexdigest()

    def close(self) -> None:
        """Have its thread end, where there is one."""
        if self._thread is not None:
            self._fragments.put(None)
            self._thread.join()
            self._thread = None

    def _has_thread(self) -> bool:
        if self._thread is None:
            thread = Thread(target=self._take, name="checksum", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has none left, and this one can do it too
                return False
            self._thread = thread
        return True

    def _take(self) -> None:
        while (fragment := self._fragments.get()) is not None:
            self._checksum.update(fragment)
            self._room.release()
