"""Runs the page in a thread of the worker's process."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import structlog
import uvicorn
from starlette.applications import Starlette

from worker.db.database import Database
from worker.errors import ConfigurationError
from worker.metrics import Metrics
from worker.settings import MetricsSettings, WebSettings
from worker.web.app import make_app, metrics_app

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
    with _served(make_app(database, metrics, trouble=trouble), settings.host, settings.port, "web"):
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
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
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
