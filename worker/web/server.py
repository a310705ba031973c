"""Runs the page in a thread of the worker's process."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import structlog
import uvicorn

from worker.db.database import Database
from worker.errors import ConfigurationError
from worker.settings import WebSettings
from worker.web.app import make_app

log = structlog.get_logger()


@contextmanager
def page(database: Database, settings: WebSettings) -> Iterator[None]:
    """Serve the page while inside.

    Raises
    ------
    ConfigurationError
        The port cannot be bound.
    """
    config = uvicorn.Config(make_app(database), host=settings.host, port=settings.port, log_config=None, access_log=False)
    try:
        listening = config.bind_socket()
    except SystemExit as error:  # uvicorn's way to say that the port is taken
        raise ConfigurationError(
            f"web.port: cannot listen on {settings.host}:{settings.port}. Is another worker running? 0 takes a free port."
        ) from error
    listening.listen()  # from here on nobody is refused: who calls early waits for the thread
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [listening]}, name="web", daemon=True)
    thread.start()
    log.info("web.ready", host=settings.host, port=listening.getsockname()[1])
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()
