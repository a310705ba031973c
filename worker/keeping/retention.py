"""Retention: the files of finished and delivered studies are deleted by age and for want of space, the oldest first.

Those of failed studies are deleted by age alone, and only where a site says so.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from worker.db import retention
from worker.db.database import Database
from worker.db.retention import EndedStudy
from worker.keeping.removal import YOUNG, discard
from worker.settings import Settings
from worker.steps.report import wanted_refusals
from worker.steps.store import FOLDER

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A study whose files are to be deleted."""

    study: EndedStudy
    why: str
    """In words, for the study's history."""


def plan(connection: Connection, settings: Settings, *, now: datetime) -> Iterator[Removal]:
    """What the rules ask for now: failed studies of their age, then the oldest finished ones until the others may stay."""
    keeping = settings.keeping
    refusals = wanted_refusals(settings.destinations)
    kept, free = retention.kept_bytes(connection), shutil.disk_usage(settings.data_dir).free
    if keeping.failed_days:
        for study in retention.failed(connection, received_before=now - timedelta(days=keeping.failed_days)):
            yield Removal(study=study, why=f"failed, and received more than {keeping.failed_days} days ago")
            kept, free = kept - study.bytes, free + study.bytes
    for study in retention.finished(connection, refusals, received_before=now - YOUNG):
        if keeping.days and study.last_received_at <= now - timedelta(days=keeping.days):
            why = f"received more than {keeping.days} days ago"
        elif keeping.maximum_bytes and kept > keeping.maximum_bytes:
            why = f"received files took more than {keeping.maximum_bytes} bytes"
        elif free < keeping.minimum_free_bytes:
            why = f"less than {keeping.minimum_free_bytes} bytes were free"
        else:
            return
        yield Removal(study=study, why=why)
        kept, free = kept - study.bytes, free + study.bytes


def failed_in_words(connection: Connection, settings: Settings, *, now: datetime) -> str:
    """How many failed studies keep files, what these take, and for how long."""
    found = retention.failed(connection, received_before=now)
    if not found:
        return "none keeps files"
    ends = f"for {settings.keeping.failed_days} days" if settings.keeping.failed_days else "until they are reprocessed"
    return f"{len(found)} keep {sum(study.bytes for study in found) / 1e6:.1f} MB {ends}"


def retain(database: Database, settings: Settings, *, clock: Callable[[], datetime]) -> int:
    """Delete what the rules ask for; answer of how many studies. Their rows stay, with a mark and an event.

    The mark is committed before a file is deleted: a crash in between leaves a file, which `mend` deletes, never a row that
    promises one.
    """
    with database.read() as connection:
        removals = list(plan(connection, settings, now=clock()))
    refusals = wanted_refusals(settings.destinations)
    count = 0
    for removal in removals:
        now = clock()
        with database.write() as connection:
            paths = retention.mark_removed(connection, removal.study, refusals, why=removal.why, now=now)
        for path in paths:
            if path.is_relative_to(FOLDER):
                discard(settings.data_dir / path, now=now)
            else:
                (settings.data_dir / path).unlink(missing_ok=True)
        count += bool(paths)
    if count:
        log.info("studies.files_removed", count=count)
    return count
