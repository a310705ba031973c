"""Certificates that are renewed while the worker runs."""

import ssl
from pathlib import Path
from threading import Lock

import structlog

from worker.errors import ConfigurationError
from worker.settings import Settings
from worker.tls import server_context

log = structlog.get_logger()


class Renewing:
    """What the TLS port is listened on with, made anew when one of its files changes.

    While the new files do not fit, as between the change of a key and that of its certificate, the old context stays.
    """

    def __init__(self, settings: Settings, context: ssl.SSLContext) -> None:
        self._settings = settings
        self._context = context
        self._guard = Lock()
        self._seen = self._look()

    def __call__(self) -> ssl.SSLContext:
        """The context for the next connection."""
        with self._guard:
            if (seen := self._look()) != self._seen:
                self._seen = seen
                try:
                    self._context = server_context(self._settings) or self._context
                    log.info("tls.renewed")
                except ConfigurationError as error:
                    log.error("tls.not_renewed", where=str(error))  # noqa: TRY400  its words name file and cure
            return self._context

    def _look(self) -> list[tuple[int, int, int] | None]:
        tls = self._settings.dicom.tls
        return [] if tls is None else [_stamp(path) for path in (tls.certificate, tls.key, tls.ca)]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
