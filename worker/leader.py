"""One runner for one database: a lock that dies with its holder."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from worker.db.database import Database
from worker.errors import AnotherRunner
from worker.files import make_folder
from worker.locks import held_alone

_ADVISORY_KEY = 0x63787277  # "cxrw": any number will do, as long as every runner takes the same


@contextmanager
def leadership(database: Database, *, data_dir: Path) -> Iterator[Callable[[], bool]]:
    """Be the one runner while inside; what is given tells whether that is still so.

    PostgreSQL's advisory lock goes with the connection, the file's lock beside an embedded database with the process.

    Raises
    ------
    AnotherRunner
        Somebody else is.
    DatabaseUnavailable
        The database does not answer.
    """
    if database.dialect == "postgresql":
        with _advisory_lock(database) as still_held:
            yield still_held
    else:
        with runner_lock(data_dir):
            yield lambda: True


@contextmanager
def _advisory_lock(database: Database) -> Iterator[Callable[[], bool]]:
    with database.hold() as connection:
        if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _ADVISORY_KEY}).scalar_one():
            raise AnotherRunner
        lost = False

        def still_held() -> bool:
            nonlocal lost
            if not lost:  # SQLAlchemy would connect again, without the lock
                try:
                    connection.execute(text("SELECT 1"))
                except DBAPIError:
                    lost = True
            return not lost

        yield still_held


@contextmanager
def runner_lock(data_dir: Path) -> Iterator[None]:
    """Hold the lock of the one runner beside an embedded database, without opening that.

    Raises
    ------
    AnotherRunner
        Somebody else holds it.
    """
    make_folder(data_dir)
    with ExitStack() as stack:
        try:
            stack.enter_context(held_alone(data_dir / "runner.lock"))
        except BlockingIOError as error:
            raise AnotherRunner from error
        yield
