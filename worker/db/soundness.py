"""Whether a database is whole."""

import sqlite3

from sqlalchemy.exc import DatabaseError

from worker.db.database import Database
from worker.errors import DatabaseDamaged


def require_whole(database: Database) -> None:
    """Read the pages of an embedded database through, which takes as long as the disk; PostgreSQL looks after its own.

    Raises
    ------
    DatabaseDamaged
        They contradict each other.
    """
    if database.dialect != "sqlite":
        return
    try:
        with database.read() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(5)").scalars().all()
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise DatabaseDamaged from error
    if found != ["ok"]:
        shown = "; ".join(line for told in found for line in told.splitlines() if not line.startswith("***"))
        raise DatabaseDamaged(f"The database is damaged: {shown}. Stop the worker and run 'cxr-worker db restore FILE'.")
