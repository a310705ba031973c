"""Connections: one engine, reads and writes told apart, and the two dialects made to behave alike."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from weakref import finalize

import sqlalchemy
from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from worker.db import embedded
from worker.db.committer import Committer, Condition
from worker.errors import ConfigurationError, DatabaseUnavailable, TransactionInTheWay

_BUSY_SECONDS = 30
_SHORTEST_PAUSE_SECONDS = 0.0002
_LONGEST_PAUSE_SECONDS = 0.005
_IN_THE_WAY = frozenset({"40001", "40P01"})
"""SQLSTATE of a serialization failure and of a deadlock (PostgreSQL, appendix A)."""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Database:
    """An open database. `close` gives its connections back."""

    def __init__(self, engine: Engine, *, lock: int | None = None) -> None:
        self.engine = engine
        self._unlock = None if lock is None else finalize(self, os.close, lock)
        self._committer = Committer(self._write_again if engine.dialect.name == "sqlite" else self.write)
        self._kept: Connection | None = None
        driver = engine.dialect.loaded_dbapi
        self._absent: tuple[type[Exception], ...] = (
            *(OperationalError, InterfaceError, InternalError, PoolTimeoutError),
            *(driver.OperationalError, driver.InterfaceError, driver.InternalError),  # of `worker.db.statement`
        )

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Look, at one moment: what others commit meanwhile is not seen.

        Raises
        ------
        DatabaseUnavailable
            The database does not answer.
        """
        with self._translated(), self.engine.connect() as connection:
            if self.dialect == "postgresql":  # a transaction of SQLite is a snapshot anyway
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Change, all or nothing; leaving without an error means committed and durable.

        Raises
        ------
        DatabaseUnavailable
            The database does not answer, or another process held it for too long.
        """
        with self._translated(), self.engine.connect().execution_options(cxr_write=True) as connection, connection.begin():
            yield connection

    def write_with_others(self, change: Callable[[Connection], None], *, provided: Condition) -> None:
        """Change as in `write`, in one transaction with what other threads ask for meanwhile: they share one sync of the disk.

        Parameters
        ----------
        change, provided
            As of `worker.db.committer.Committer.commit`.

        Raises
        ------
        DatabaseUnavailable
            As of `write`.
        """
        self._committer.commit(change, provided=provided)

    @contextmanager
    def hold(self) -> Iterator[Connection]:
        """Have a connection of one's own, each statement its own transaction; its locks go with it, however it is left.

        Raises
        ------
        DatabaseUnavailable
            The database does not answer.
        """
        with self._translated(), self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.detach()  # back in the pool it would stay open, and locked
            yield connection

    def close(self) -> None:
        """Close every connection."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self.engine.dispose()
        if self._unlock is not None:
            self._unlock()

    @contextmanager
    def _write_again(self) -> Iterator[Connection]:
        """Change as in `write`, one thread at a time, on a kept connection: the way to one takes as long as a change."""
        with self._translated():
            connection, self._kept = self._kept or self._keep(), None
            driver: Any = connection.connection.driver_connection
            try:
                _begin_immediate(driver)
                yield connection
                connection.commit()
                driver.commit()  # where no statement went through SQLAlchemy
                self._kept = connection
            finally:
                if self._kept is None:
                    connection.invalidate()  # closing it takes back what was changed
                    connection.close()

    def _keep(self) -> Connection:
        connection = self.engine.connect()
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA busy_timeout = 0")  # `_begin_immediate` waits
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._absent as error:
            if _sqlstate(error) in _IN_THE_WAY:
                raise TransactionInTheWay(f"Another transaction was in the way: {_cause(error)}.") from error
            raise DatabaseUnavailable(f"The database does not answer: {_cause(error)}.") from error
        except (DatabaseError, sqlite3.DatabaseError) as error:
            if getattr(_driver_s(error), "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:  # without what extends the code
                raise
            cure = "look at database_url, or put a backup in its place: 'cxr-worker db restore FILE'"
            raise DatabaseUnavailable(f"The database cannot be read: {_cause(error)}; {cure}.") from error


def parsed_url(url: str) -> URL:
    """A database's URL in its parts.

    Raises
    ------
    ConfigurationError
        It is none.
    """
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:  # a port that is no number is a ValueError
        raise ConfigurationError(
            "database_url: not a database URL; sqlite:///var/worker.db or postgresql+psycopg://user@host/name."
        ) from error


def open_database(url: str) -> Database:
    """Open a database without asking it anything.

    Parameters
    ----------
    url
        ``sqlite:///path`` or ``postgresql+psycopg://user:password@host/name``.

    Raises
    ------
    ConfigurationError
        The URL names no database we can use, or its driver is not installed.
    DatabaseUnavailable
        A backup is being put in its place.
    """
    parsed = parsed_url(url)
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise ConfigurationError(f"database_url: '{backend}' is not supported; use sqlite or postgresql+psycopg.")
    lock = None
    options: dict[str, Any] = {"hide_parameters": True, "pool_pre_ping": backend == "postgresql"}
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError("database_url: a database in memory would lose what was received; name a file.")
        folder = Path(parsed.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(f"database_url: the folder {folder} cannot be made: {error.strerror}.") from error
        lock = embedded.share(Path(parsed.database))
        embedded.hide(Path(parsed.database))
        options["connect_args"] = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
    try:
        engine = sqlalchemy.create_engine(parsed, **options)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigurationError(
            "database_url: the driver is not installed; for PostgreSQL install cxr-worker[postgresql] and use postgresql+psycopg://."
        ) from error
    if backend == "sqlite":
        _behave_as_a_server(engine)
    return Database(engine, lock=lock)


def files_of(database: Database) -> list[Path]:
    """The files of an embedded database: itself, its log, its lock, and what a restore kept of those before it."""
    path = database.engine.url.database
    return embedded.files_at(Path(path)) if database.dialect == "sqlite" and path else []


def insert_if_absent(connection: Connection, table: Table, values: Mapping[str, Any]) -> int | None:
    """Insert a row unless a unique constraint says that it is there; answer its id, or None where it was there."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(**values).on_conflict_do_nothing().returning(table.c.id)
    inserted: int | None = connection.execute(statement).scalar_one_or_none()
    return inserted


def _behave_as_a_server(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver would begin transactions of its own, too late for a write lock
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # NORMAL may lose the last commits with the power
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        if driver.in_transaction:  # begun by hand
            return
        if not connection.get_execution_options().get("cxr_write", False):
            driver.execute("BEGIN")
            return
        # A transaction that reads first and writes later could meet SQLITE_BUSY with no way to wait.
        driver.execute("PRAGMA busy_timeout = 0")
        try:
            _begin_immediate(driver)
        finally:
            driver.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")


def _begin_immediate(driver: Any) -> None:
    """Wait for the turn to write. SQLite's own waits soon are 25 to 100 ms long, another's transaction takes one or two."""
    until = monotonic() + _BUSY_SECONDS
    pause = _SHORTEST_PAUSE_SECONDS
    while True:
        try:
            driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() >= until:
                raise
            sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
        else:
            return


def _cause(error: Exception) -> str:
    """The driver's own words, which name host, user or file, never a password; `hide_parameters` keeps values out."""
    if isinstance(error, PoolTimeoutError):
        return type(error).__name__
    told = _driver_s(error)
    lines = str(told).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(told).__name__


def _sqlstate(error: Exception) -> str | None:
    state: str | None = getattr(_driver_s(error), "sqlstate", None)  # sqlite3 knows none
    return state


def _driver_s(error: Exception) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
