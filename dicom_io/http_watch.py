"""A watch over HTTP exchanges: one that takes too long is broken off, however busy its peer looks.

The timeout of a socket begins anew with every byte that comes.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


class Watch:
    """Watches over one exchange after another, each on the newest connection of the pools that are made here."""

    def __init__(self) -> None:
        self.overdue = False
        """Whether the last exchange was broken off."""
        self._line: socket.socket | None = None

    def pools(self) -> dict[str, type[HTTPConnectionPool]]:
        """Pools by scheme, for `urllib3.PoolManager.pool_classes_by_scheme`, whose connections are watched."""
        watch = self

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return watch._over(super()._new_conn())

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return watch._over(super()._new_conn())

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        return {"http": PlainPool, "https": SecurePool}

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Break off what goes on in here once it has taken so long."""
        self.overdue = False
        timer = Timer(seconds, self._break_off)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        """Let the connection go: it stays open while it is watched."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _over(self, line: socket.socket) -> socket.socket:
        self.close()
        self._line = line.dup()  # TLS takes the socket itself over
        return line

    def _break_off(self) -> None:
        self.overdue = True
        line = self._line
        if line is not None:
            with suppress(OSError):  # it has ended by itself
                line.shutdown(socket.SHUT_RDWR)
