"""Whether a database is whole, and its events are guarded."""

from collections.abc import Iterable

from worker.db.database import Database
from worker.db.migrate import made_by, newest_revision
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
    with database.read() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(5)").scalars().all()
    if found != ["ok"]:
        shown = "; ".join(line for told in found for line in told.splitlines() if not line.startswith("***"))
        raise DatabaseDamaged(f"The database is damaged: {shown}. Stop the worker and run 'cxr-worker db restore FILE'.")


def require_guarded(database: Database) -> None:
    """Go on only where the triggers that keep events append-only are there; of a database at the newest migration.

    Raises
    ------
    DatabaseDamaged
        One is missing, is another one, or is turned off.
    """
    with database.read() as connection:
        if database.dialect == "sqlite":
            missing = lacking(connection.exec_driver_sql(MADE).all(), newest_revision())
        else:
            enabled = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'events'::regclass AND tgenabled <> 'D'"
            found = connection.exec_driver_sql(enabled).scalars().all()
            missing = [] if "events_append_only" in found else ["trigger events_append_only"]
    if missing:
        raise DatabaseDamaged(
            f"Events can be changed: {', '.join(missing)} is missing or changed. See 'Events can be changed' in the runbook."
        )


MADE = "SELECT type, name, sql FROM sqlite_master WHERE type IN ('table', 'trigger')"
"""What `lacking` looks at."""


def lacking(found: Iterable[tuple[str, str, str]], revision: str) -> list[str]:
    """The tables and triggers that an embedded database at a migration should have and has not; triggers to the letter."""
    there = {_known_by(*row) for row in found}
    return [f"{kind} {name}" for kind, name, sql in made_by(revision, MADE) if _known_by(kind, name, sql) not in there]


def _known_by(kind: str, name: str, sql: str) -> tuple[str, ...]:
    return (kind, name, " ".join(sql.split()).casefold()) if kind == "trigger" else (kind, name)
