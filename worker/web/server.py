"""Runs the page in a thread of the worker's process, which receives too: it must leave descriptors for that."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import structlog
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.db.database import Database
from worker.errors import ConfigurationError
from worker.metrics import Metrics
from worker.settings import MetricsSettings, WebSettings
from worker.web.app import make_app, metrics_app

CONNECTIONS_AT_ONCE = 64
"""More are closed as soon as they come."""
REQUEST_SECONDS = 10.0
"""For a request to arrive whole."""
_ANSWER_SECONDS = 60.0
"""For its answer to be made and taken."""

log = structlog.get_logger()


@contextmanager
def page(
    database: Database, metrics: Metrics, settings: WebSettings, *, trouble: Callable[[], str | None] = lambda: None
) -> Iterator[None]:
    """Serve the page, and the figures with it, while inside. `trouble` is the runner's, for ``/readyz``.

    Raises
    ------
    ConfigurationError
        The port cannot be bound.
    """
    app = make_app(database, metrics, trouble=trouble, names=(settings.host, *settings.names))
    with _served(app, settings.host, settings.port, "web"):
        yield


@contextmanager
def figures(
    database: Database, metrics: Metrics, settings: MetricsSettings, *, trouble: Callable[[], str | None] = lambda: None
) -> Iterator[None]:
    """Serve the figures without the page while inside. `trouble` is the runner's, for ``/readyz``.

    Raises
    ------
    ConfigurationError
        The port cannot be bound.
    """
    with _served(metrics_app(database, metrics, trouble=trouble), settings.host, settings.port, "metrics"):
        yield


@contextmanager
def _served(app: Starlette, host: str, port: int, section: str) -> Iterator[None]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)  # from here on who calls early waits for the thread
    except OSError as error:
        raise ConfigurationError(
            f"{section}.port: cannot listen on {host}:{port}: {error.strerror}. Is another worker running? 0 takes a free port."
        ) from error
    server = uvicorn.Server(
        uvicorn.Config(app, http=_Connection, backlog=CONNECTIONS_AT_ONCE, log_config=None, access_log=False)
    )
    thread = Thread(target=server.run, kwargs={"sockets": [listening]}, name=section, daemon=True)
    thread.start()
    ready = f"{section}.ready"
    log.info(ready, host=host, port=listening.getsockname()[1])
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()


class _Connection(H11Protocol):
    """One of so many connections, whose requests and answers each have their time.

    uvicorn has none: ``limit_concurrency`` refuses only whole requests, ``timeout_keep_alive`` begins after an answer.
    """

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_AT_ONCE:
            self.logger.warning("More connections than are served at once.")
            transport.abort()
        else:
            self._allow(REQUEST_SECONDS)

    def data_received(self, data: bytes) -> None:
        awaited_more = self._awaits_more()
        super().data_received(data)
        if awaited_more and not self._awaits_more():
            self._allow(_ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        is_taken = not self.transport.get_write_buffer_size()
        self._allow(REQUEST_SECONDS if is_taken and self._awaits_more() else _ANSWER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._allow(None)
        super().connection_lost(exc)

    def _awaits_more(self) -> bool:
        if self.cycle is None:  # before the first request, though uvicorn declares otherwise
            return True  # type: ignore[unreachable]
        return self.cycle.response_complete or self.cycle.more_body

    def _allow(self, seconds: float | None) -> None:
        """Give what comes next its time; None: there is nothing more to wait for."""
        if self._overdue is not None:
            self._overdue.cancel()
        self._overdue = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
