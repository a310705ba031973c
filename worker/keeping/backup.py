"""Backup and restore of the embedded database: a copy that is whole, made while the worker works."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL

from worker.db.database import open_database, parsed_url
from worker.db.embedded import alone_with
from worker.db.events import DATABASE_BACKED_UP, DATABASE_RESTORED, Event
from worker.db.migrate import is_known
from worker.db.soundness import MADE, lacking
from worker.errors import AnotherRunner, ConfigurationError, DatabaseOutdated, UnusableBackup
from worker.files import make_folder, sync_folder
from worker.leader import runner_lock
from worker.settings import Settings

_FILE_MODE: Final = 0o600
_BUSY_SECONDS: Final = 30


def back_up(settings: Settings, target: Path, *, user: str, now: datetime) -> int:
    """Copy the embedded database as it is at one moment into a new file, and read the copy through; answer its size in bytes.

    That `user` did is an event, without which there is no copy.

    Raises
    ------
    ConfigurationError
        The database is not the embedded one, or the file is there already or cannot be written.
    UnusableBackup
        The copy is damaged, or there is no room for it; it is not kept.
    """
    source = _embedded(settings, f"pg_dump --format=custom --file={target}")
    if not source.exists():
        raise ConfigurationError(f"{source}: there is no database yet.")
    with (
        closing(open_database(settings.database_url.get_secret_value())),  # so that nobody replaces it meanwhile
        _written(target) as part,
        closing(sqlite3.connect(source, timeout=_BUSY_SECONDS)) as database,
    ):
        with closing(sqlite3.connect(part)) as copy:
            database.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        require_usable(part)
        _note(database, Event(kind=DATABASE_BACKED_UP, at=now, detail=target.name, facts={"user": user, "file": target.name}))
    return target.stat().st_size


def restore(settings: Settings, backup: Path, *, user: str, now: datetime) -> list[Path]:
    """Put a backup in the place of the embedded database; answer where what was there before is kept.

    That `user` did is an event of the database that counts from then on.

    Raises
    ------
    ConfigurationError
        The database is not the embedded one, or there is no such backup.
    UnusableBackup
        It is damaged, or no database of ours, or there is no room for it.
    DatabaseOutdated
        A newer version of the worker made it.
    AnotherRunner
        Somebody has the database open.
    """
    place = _embedded(settings, f"pg_restore --clean --if-exists {backup}")
    if not backup.is_file():
        raise ConfigurationError(f"{backup}: no such file.")
    require_usable(backup)
    make_folder(place.parent)
    with alone_with(place), runner_lock(settings.data_dir):  # the first to refuse says what to stop
        facts: dict[str, str | int | None] = {"user": user, "file": backup.name, "last_event_id": None}
        before, kept = place.with_name(f"{place.name}.before-{now:%Y%m%dT%H%M%S%f}"), []
        if place.exists():
            _close_for_good(place)
            facts["last_event_id"] = _last_event_id(place)
            try:
                before.hardlink_to(place)  # at no moment is there none: a worker that starts would make an empty one
            except OSError as error:
                raise ConfigurationError(f"{before}: the database cannot be kept aside: {error.strerror}.") from error
            kept.append(before)
        with _written(place, replacing=True) as part, closing(sqlite3.connect(backup)) as source:
            with closing(sqlite3.connect(part)) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
                _note(copy, Event(kind=DATABASE_RESTORED, at=now, detail=backup.name, facts=facts))
            require_usable(part)
            kept += _logs_moved(place, before)
        require_usable(place)
    return kept


def require_usable(path: Path) -> None:
    """Read a database file through.

    Raises
    ------
    UnusableBackup, DatabaseOutdated
        As `restore`.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found = [row[0] for row in database.execute("PRAGMA integrity_check(5)")]
            revision = database.execute("SELECT version_num FROM alembic_version").fetchone()
            made = database.execute(MADE).fetchall()
    except sqlite3.DatabaseError as error:
        raise UnusableBackup(f"{path}: {error}.") from error
    if found != ["ok"]:
        raise UnusableBackup(f"{path}: damaged: {'; '.join(found)}.")
    if revision is None or not is_known(revision[0]):
        raise DatabaseOutdated(f"{path}: at migration {revision[0] if revision else 'none'}, which this version does not know.")
    missing = lacking(made, revision[0])
    if missing:
        raise UnusableBackup(f"{path}: not as a worker left it: {', '.join(missing)} is missing or changed.")


def _embedded(settings: Settings, otherwise: str) -> Path:
    url = parsed_url(settings.database_url.get_secret_value())
    if url.database and settings.embedded:
        return Path(url.database)
    shown = URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()
    raise ConfigurationError(f"database_url: this is for the embedded database; run: {otherwise} --dbname={shown}")


@contextmanager
def _written(target: Path, *, replacing: bool = False) -> Iterator[Path]:
    """A file to write, which takes its name when all went well: readable to nobody else, durable, whole or not there."""
    part = target.with_name(f"{target.name}.part")
    try:
        if target.exists() and not replacing:
            raise FileExistsError(17, "it is there already")
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE))
    except OSError as error:
        raise ConfigurationError(f"{target}: {error.strerror}.") from error
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
        sync_folder(target.resolve().parent)
    except (OSError, sqlite3.Error) as error:
        raise UnusableBackup(f"{target}: not written: {error}. Look whether there is room on its disk.") from error
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _close_for_good(path: Path) -> None:
    """Bring the log of a database into its file, which only the last who has it open can."""
    try:
        with closing(sqlite3.connect(path, timeout=1)) as database:
            database.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:  # without what extends the code
            raise AnotherRunner("A worker has the database open: stop 'serve', 'receive', 'run' and 'web' first.") from error
        # else it is damaged, which is why it is replaced


def _last_event_id(path: Path) -> int | None:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found: int | None = database.execute("SELECT max(id) FROM events").fetchone()[0]
    except sqlite3.DatabaseError:  # it is damaged, or none of ours
        return None
    return found


def _note(database: sqlite3.Connection, event: Event) -> None:
    """Note an event in a database at whichever migration: the first ones had no facts."""
    columns = {row[1] for row in database.execute("PRAGMA table_info(events)")}
    values = {"at": f"{event.at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}", "kind": event.kind, "detail": event.detail}
    if "facts" in columns:
        database.execute(
            "INSERT INTO events (at, kind, detail, facts) VALUES (:at, :kind, :detail, :facts)",
            values | {"facts": json.dumps(dict(event.facts))},
        )
    else:
        told = "; ".join(f"{name}: {value}" for name, value in event.facts.items())
        database.execute("INSERT INTO events (at, kind, detail) VALUES (:at, :kind, :detail)", values | {"detail": told})
    database.commit()


def _logs_moved(place: Path, before: Path) -> list[Path]:
    """Take away the logs that SQLite would play into whatever has the database's name; answer where they are now."""
    moved = []
    for suffix in ("-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            moved.append(place.with_name(place.name + suffix).rename(before.with_name(before.name + suffix)))
    return moved
