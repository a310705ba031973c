"""SQL that every object waits for, handed to the driver as it is: what SQLAlchemy builds around it costs several times more."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Dialect

from worker.db.schema import UtcDateTime

_NAME = re.compile(r":(\w+)")


class Statement:
    """A statement with ``:names`` for its values, in words that SQLite and PostgreSQL share.

    Values and rows are the driver's: write moments with `stored`, read none. Its errors are the driver's too; within
    `worker.db.database.Database.write` those that mean an absent database are told as such.
    """

    def __init__(self, sql: str, *, locking: str = "") -> None:
        """`locking` follows in PostgreSQL alone: a transaction of SQLite that writes holds everything."""
        self._texts = {"sqlite": sql, "postgresql": _NAME.sub(r"%(\1)s", sql + locking)}

    def __call__(self, connection: Connection, **values: Any) -> Sequence[tuple[Any, ...]]:
        """Execute it in the transaction that is open; answer its rows."""
        driver: Any = connection.connection.driver_connection
        cursor = driver.execute(self._texts[connection.dialect.name], values)
        return cursor.fetchall() if cursor.description else ()


def stored(moment: datetime, connection: Connection) -> Any:
    """A moment as `UtcDateTime` stores it there."""
    process = _processor(connection.dialect)
    return moment if process is None else process(moment)


@lru_cache(maxsize=4)
def _processor(dialect: Dialect) -> Callable[[datetime], Any] | None:
    return UtcDateTime().dialect_impl(dialect).bind_processor(dialect)
