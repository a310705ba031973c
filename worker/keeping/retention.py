"""Retention: the files of finished and delivered studies are deleted by age and for want of space, the oldest first."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from worker.db import retention
from worker.db.database import Database
from worker.db.retention import FinishedStudy
from worker.keeping.removal import YOUNG, discard
from worker.settings import Settings
from worker.steps.report import wanted_refusals
from worker.steps.store import FOLDER

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A study whose files are to be deleted."""

    study: FinishedStudy
    why: str
    """In words, for the study's history."""


def plan(connection: Connection, settings: Settings, *, now: datetime) -> Iterator[Removal]:
    """What the rules ask for now: the oldest finished studies, until those that are left may stay."""
    keeping = settings.keeping
    refusals = wanted_refusals(settings.destinations)
    kept, free = retention.kept_bytes(connection), shutil.disk_usage(settings.data_dir).free
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
