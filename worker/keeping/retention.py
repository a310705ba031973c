"""Retention: the files of finished and delivered studies are deleted by age and for want of space, the oldest first.

Those of failed studies, and of reported ones that go nowhere, are deleted by age alone, and only where a site says so. By age
nothing is deleted while nothing bears the clock out: one that is wrong for a minute would let go whatever is finished.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from worker.db import events, retention
from worker.db.database import Database
from worker.db.retention import EndedStudy, Ending, Reason, Recipients
from worker.keeping import ballast
from worker.keeping.removal import YOUNG, discard
from worker.settings import KeepingSettings, Settings
from worker.steps.store import FOLDER

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A study whose files are to be deleted."""

    study: EndedStudy
    why: str
    """In words, for the study's history."""
    by_age: bool
    """Whether it is its age that lets them go, by the clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _RuleByAge:
    """For how many days what came to an end other than being finished keeps its files; 0: whatever its age."""

    ending: Ending
    days: int
    words: str
    otherwise: str
    """How long without the rule."""


def plan(connection: Connection, settings: Settings, *, now: datetime, by_age: bool = True) -> Iterator[Removal]:
    """What the rules ask for now: what failed or goes nowhere by age, then the oldest finished until the rest may stay.

    Without `by_age`, only what is to go for want of space.
    """
    keeping, recipients = settings.keeping, recipients_of(settings)
    kept, free = retention.kept_bytes(connection), shutil.disk_usage(settings.data_dir).free
    for rule in _rules_by_age(keeping) if by_age else ():
        threshold = retention.threshold(connection, now - timedelta(days=rule.days), now=now)
        for study in retention.ended(connection, rule.ending, recipients, before=threshold.at) if rule.days else ():
            if study.was_received_before(threshold):
                yield Removal(study=study, why=f"{rule.words} more than {rule.days} days ago", by_age=True)
                kept, free = kept - study.bytes, free + study.bytes
    threshold = retention.threshold(connection, now - timedelta(days=keeping.days), now=now)
    for study in retention.ended(connection, Ending.FINISHED, recipients, before=now - YOUNG):
        is_old = by_age and keeping.days > 0 and study.was_received_before(threshold)
        if is_old:
            why = f"received more than {keeping.days} days ago"
        elif keeping.maximum_bytes and kept > keeping.maximum_bytes:
            why = f"received files took more than {keeping.maximum_bytes} bytes"
        elif free < keeping.minimum_free_bytes:
            why = f"less than {keeping.minimum_free_bytes} bytes were free"
        elif study.last_received_at > threshold.at:
            return
        else:  # by its date it is older than it is
            continue
        yield Removal(study=study, why=why, by_age=is_old)
        kept, free = kept - study.bytes, free + study.bytes


def recipients_of(settings: Settings) -> Recipients:
    """Who is told of studies, by the configuration."""
    return Recipients(destinations=frozenset(destination.name for destination in settings.destinations))


def kept_in_words(connection: Connection, settings: Settings, ending: Ending, *, now: datetime) -> str:
    """How many studies that failed, or go nowhere, keep files, what these take, and for how long."""
    found = retention.ended(connection, ending, recipients_of(settings), before=now)
    if not found:
        return "none keeps files"
    rule = next(rule for rule in _rules_by_age(settings.keeping) if rule.ending is ending)
    return f"{len(found)} keep {sum(study.bytes for study in found) / 1e6:.1f} MB " + (
        f"for {rule.days} days" if rule.days else rule.otherwise
    )


def _rules_by_age(keeping: KeepingSettings) -> tuple[_RuleByAge, ...]:
    return (
        _RuleByAge(
            ending=Ending.FAILED,
            days=keeping.failed_days,
            words="failed, and received",
            otherwise="until they are reprocessed",
        ),
        _RuleByAge(
            ending=Ending.UNDELIVERED,
            days=keeping.undelivered_days,
            words="delivered nowhere, and received and reported",
            otherwise="until they are delivered",
        ),
    )


def retain(database: Database, settings: Settings, *, clock: Callable[[], datetime], user: str = "") -> int:
    """Delete what the rules ask for; answer of how many studies. Their rows stay, with a mark and an event.

    Nothing is deleted by age while it is not known that the clock is right, unless a `user` asks for it. Where the disk is
    full, the ballast beside the embedded database makes room for the marks.

    The mark is committed before a file is deleted: a crash in between leaves a file, which `mend` deletes, never a row that
    promises one.
    """
    if settings.embedded:
        ballast.give_up(settings.data_dir)
    with database.read() as connection:
        now = clock()
        removals = list(plan(connection, settings, now=now))
        aged = 0 if user else sum(removal.by_age for removal in removals)
        waits = aged > 0 and not retention.clock_is_known(connection, now=now)
        if waits:
            removals = list(plan(connection, settings, now=now, by_age=False))
    if waits:
        _tell_of_doubt(database, count=aged, now=now)
    recipients = recipients_of(settings)
    count = 0
    for removal in removals:
        now = clock()
        with database.write() as connection:
            why = Reason(words=removal.why, user=user)
            paths = retention.mark_removed(connection, removal.study, recipients, why=why, now=now)
        for path in paths:
            if path.is_relative_to(FOLDER):
                discard(settings.data_dir / path, now=now)
            else:
                (settings.data_dir / path).unlink(missing_ok=True)
        count += bool(paths)
    if count:
        log.info("studies.files_removed", count=count)
    if settings.embedded:
        with suppress(OSError):  # a little later, then
            ballast.take_in(settings.data_dir, spare_bytes=settings.dicom.minimum_free_bytes)
    return count


def _tell_of_doubt(database: Database, *, count: int, now: datetime) -> None:
    """Note, once a day, that files wait for the clock to be borne out: by this very event, when a day has gone by."""
    with database.write() as connection:
        if retention.doubt(connection, now=now) is not None:
            return
        words = f"The files of {count} studies wait for a day: nothing noted before bears out the time by which they are old."
        events.add(connection, events.CLOCK_DOUBTED, at=now, detail=words)
    log.warning("retention.waits", count=count)
