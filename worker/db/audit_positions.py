"""How far each audit repository was told of the events."""

from datetime import datetime

from sqlalchemy import Connection, func, select, update

from worker.db import events, schema
from worker.db.database import insert_if_absent
from worker.db.schema import audit_positions


def told(connection: Connection, repository: str) -> int:
    """The number of the last event that a repository was told of, 0 where it was told of none."""
    wanted = select(audit_positions.c.event_id).where(audit_positions.c.repository == repository)
    return connection.execute(wanted).scalar() or 0


def oldest_untold(connection: Connection, repository: str) -> datetime | None:
    """When the first event happened that a repository was not told of."""
    wanted = select(func.min(schema.events.c.at)).where(schema.events.c.id > told(connection, repository))
    found: datetime | None = connection.execute(wanted).scalar()
    return found


def move(connection: Connection, repository: str, *, event_id: int, now: datetime) -> None:
    """Note how far a repository was told."""
    row = {"repository": repository, "event_id": event_id, "at": now}
    if insert_if_absent(connection, audit_positions, row) is None:
        connection.execute(
            update(audit_positions).where(audit_positions.c.repository == repository).values(event_id=event_id, at=now)
        )


def settled(connection: Connection) -> int:
    """The number up to which no event can come any more: PostgreSQL gives numbers before it commits.

    Its writers are waited for, and wait for no longer than this transaction; SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE events IN SHARE MODE")
    return events.newest_id(connection)
