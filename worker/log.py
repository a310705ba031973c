"""Logs: an event name and a few allowed fields, on stderr. What is not on the list does not get out, so patient data cannot."""

import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog

from dicom_io.errors import DicomError
from worker.errors import WorkerError

ALLOWED_FIELDS = frozenset(
    {
        "ae_title",
        "attempts",
        "called_ae_title",
        "calling_ae_title",
        "count",
        "database",
        "delay_seconds",
        "destination",
        "device",
        "error",
        "eligible",
        "generation",
        "host",
        "images",
        "instances",
        "kind",
        "library",
        "model",
        "peer_address",
        "port",
        "precision",
        "reason_code",
        "revision",
        "seconds",
        "state",
        "status",
        "step",
        "study_id",
        "triage",
        "version",
        "where",
        "why",
    }
)
_ALWAYS = frozenset({"event", "level", "timestamp"})
_SAME_PLACE_SECONDS = 60.0


def configure(*, json_lines: bool | None = None) -> None:
    """Send our events to stderr, as JSON lines unless a person looks on; let libraries speak only of trouble."""
    as_json = not sys.stderr.isatty() if json_lines is None else json_lines
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(pad_event_to=24)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            keep_allowed,
            renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_LibraryHandler()], level=logging.WARNING, force=True)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # it warns of each start that coalesces with a running one
    logging.getLogger("pynetdicom.transport").setLevel(logging.CRITICAL)  # a peer that is away is an event of ours
    logging.captureWarnings(capture=True)


def keep_allowed(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop every field that is not on the list."""
    return {key: value for key, value in event.items() if key in ALLOWED_FIELDS or key in _ALWAYS}


def traceback_of(error: BaseException) -> str:
    """The way to an error as ``file.py:12 function`` steps, without its message, which may quote what a data set held."""
    frames = traceback.extract_tb(error.__traceback__)
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-8:])


def words_of(error: BaseException) -> str:
    """What an error says, where the words are ours; of any other, which may quote what a data set held, its name and place."""
    if isinstance(error, DicomError | WorkerError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__} at {traceback_of(error)}"


def hide_words_of_errors() -> None:
    """Let an error that nobody caught be told by its name and place."""

    def tell(event: str, error: BaseException | None) -> None:
        if error is not None:
            structlog.get_logger().critical(event, error=type(error).__name__, where=traceback_of(error))

    threading.excepthook = lambda died: tell("thread.died", died.exc_value)
    sys.excepthook = lambda _, error, __: tell("process.died", error)


class _LibraryHandler(logging.Handler):
    """Says that a library complained, and where; its words may hold values of a data set and are left out.

    Of `dicom_io`, which is ours, the words are told as they stand in the code, without the values that go into them.
    One place is told of once a minute, with how often it spoke since: what strangers bring about must not fill a disk.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str, str | None], tuple[float, int]] = {}
        """When, and how often since; as many as there are places in the code."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        where = f"{record.filename}:{record.lineno}"
        told_at, unsaid = self._told.get((record.name, where, error), (-_SAME_PLACE_SECONDS, 0))
        if abs(record.created - told_at) < _SAME_PLACE_SECONDS:  # abs: the clock may have been set back
            self._told[record.name, where, error] = told_at, unsaid + 1
            return
        self._told[record.name, where, error] = record.created, 0
        structlog.get_logger().warning(
            "library.message",
            library=record.name,
            where=where,
            count=unsaid + 1,
            **({"why": record.msg} if record.name.startswith("dicom_io.") and isinstance(record.msg, str) else {}),
            **({"error": error} if error else {}),
        )
