#!/usr/bin/env python3
"""Copies every row of one database of cxr-worker into another, empty one: the way from the embedded default to PostgreSQL.

    python deploy/copy_database.py sqlite:////var/lib/cxr-worker/worker.db postgresql+psycopg://cxr@database/cxr

Stop the worker first, and run ``cxr-worker db upgrade`` on both. The files in the data folder stay where they are. The password
comes from PGPASSWORD or ~/.pgpass. All rows or none.
"""

import sys
from contextlib import closing

from sqlalchemy import Connection, func, insert, select, text

from worker.db.database import open_database
from worker.db.migrate import require_newest
from worker.db.schema import metadata
from worker.errors import ConfigurationError, WorkerError

ROWS_AT_ONCE = 1000


def copy_database(source_url: str, target_url: str) -> dict[str, int]:
    """Copy all tables; answer how many rows of each.

    Raises
    ------
    ConfigurationError
        The target holds rows already.
    DatabaseOutdated
        One of the two is not at the newest migration.
    """
    with closing(open_database(source_url)) as source, closing(open_database(target_url)) as target:
        require_newest(source)
        require_newest(target)
        with source.read() as reading, target.write() as writing:
            return {table: _copy(table, reading, writing) for table in (each.name for each in metadata.sorted_tables)}


def _copy(name: str, reading: Connection, writing: Connection) -> int:
    table = metadata.tables[name]
    if writing.execute(select(func.count()).select_from(table)).scalar_one():
        raise ConfigurationError(f"The target's table {name} is not empty: copy into a new database.")
    count = 0
    for rows in reading.execute(select(table).order_by(table.c.id)).mappings().partitions(ROWS_AT_ONCE):
        writing.execute(insert(table), [dict(row) for row in rows])
        count += len(rows)
    if count and writing.dialect.name == "postgresql":  # ids were given, not drawn: the next one drawn would be 1
        newest = select(func.max(table.c.id)).scalar_subquery()
        writing.execute(select(func.setval(func.pg_get_serial_sequence(name, text("'id'")), newest)))
    return count


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] in {"-h", "--help"}:
        sys.exit(__doc__)
    try:
        copied = copy_database(sys.argv[1], sys.argv[2])
    except WorkerError as error:
        sys.exit(str(error))
    print(", ".join(f"{count} {table}" for table, count in copied.items()))  # noqa: T201  what a command says
