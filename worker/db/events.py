"""The append-only record of what happened: to which study, who did or asked it, and by which facts.

`detail` is for a person and names no patient and no UID. `facts` are for a program that audits: AE titles, addresses, users,
models, destinations, and the UIDs of our own reports. Whose study it was then stands in columns of their own, which no view of
these events shows but the DICOM audit messages.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from worker.db.schema import events, studies
from worker.db.statement import Statement, stored
from worker.values import StudyId

SHADOW_FAILED = "shadow_failed"
"""The shadow model gave no answer for some image of a study; the active model's stands. Facts: active, shadow (each with name,
version, weights_sha256), instances (of the images), where both models are known."""

NO_WAY_BACK = "no_way_back"
"""A study's sender should be sent its results back and is not known. Facts: ae_title."""

OUTPUT_SKIPPED = "output_skipped"
"""An output of a study was not made, and the others were."""

STARTED = "started"
"""A process of the worker began. Facts: roles."""

STOPPED = "stopped"
"""A process of the worker ended as it was told to. Facts: roles."""

OPENED = "opened"
"""The first image of a study came. Facts: ae_title, address."""

REOPENED = "reopened"
"""Another image of a study came after it was complete. Facts: ae_title, address."""

COMPLETE = "complete"
"""Every image of a study is here. Facts: senders of those that came since it was complete last, each with ae_title, address and
instances; turn, of the last of these."""

SENT = "sent"
"""A destination keeps a report. Facts: destination, kind, sop_class_uid, sop_instance_uid."""

DELIVERY_FAILED = "delivery_failed"
"""A report was given up for a destination. Facts: as of SENT."""

DELIVERY_ON_HOLD = "delivery_on_hold"
"""A destination took a report in no attempt; it waits until it can be reached, or takes another one. Facts: as of SENT."""

REFUSED = "refused"
"""An association or an object was not accepted. Facts: ae_title, address, and status, where it was an object."""

ABORTED = "aborted"
"""A connection was broken off, by us or, in the middle of a message, by the peer. Facts: ae_title, address, reason."""

REPROCESS = "reprocess"
"""A study is due again. Facts: user, where somebody asked for it."""

RETRY = "retry"
"""Somebody had undelivered reports sent again. Facts: user, deliveries."""

ACTIVATED = "model_activated"
"""Somebody named the model that answers. Facts: user, model."""

SHADOWED = "shadow_activated"
"""Somebody named the shadow model, or none. Facts: user, model."""

CLOCK_DOUBTED = "clock_doubted"
"""Files were to be deleted by their age, at a time that nothing noted before bears out; they wait."""

EXPORTED = "audit_exported"
"""Somebody exported these events. Facts: user, format."""

DATABASE_BACKED_UP = "database_backed_up"
"""Somebody copied the embedded database. Facts: user, file (its name alone)."""

DATABASE_RESTORED = "database_restored"
"""Somebody put a backup in the place of the embedded database. Facts: user, file (its name alone), last_event_id (of what was
there before; None where that could not be read)."""

_AT_ONCE = 500
_WHOSE = ("patient_id", "issuer_of_patient_id", "accession_number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. `kind` is a short word such as ``complete``."""

    kind: str
    at: datetime
    study_id: StudyId | None = None
    detail: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event as it stands in the record, with the study it is about as that was then.

    Of events that older versions recorded, whose study it is now: nobody knows more.
    """

    id: int
    event: Event
    study_uid: str | None
    patient_id: str | None
    issuer_of_patient_id: str | None
    accession_number: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which events are looked for; None: whichever."""

    since: datetime | None = None
    study_uid: str | None = None
    kind: str | None = None
    after_id: int | None = None


_RECORD = Statement(
    "INSERT INTO events (at, study_id, kind, detail, facts, patient_id, issuer_of_patient_id, accession_number)"
    " VALUES (:at, :study_id, :kind, :detail, :facts,"
    " (SELECT patient_id FROM studies WHERE id = :study_id),"
    " (SELECT issuer_of_patient_id FROM studies WHERE id = :study_id),"
    " (SELECT accession_number FROM studies WHERE id = :study_id))"
)


def record(connection: Connection, event: Event) -> None:
    """Note that something happened, and whose study it is while it happens."""
    _RECORD(
        connection,
        at=stored(event.at, connection),
        study_id=event.study_id,
        kind=event.kind,
        detail=event.detail,
        facts=json.dumps(dict(event.facts)),
    )


def add(connection: Connection, kind: str, *, at: datetime, study_id: StudyId | None = None, detail: str = "") -> None:
    """Note that something happened that has no facts beside its words."""
    record(connection, Event(kind=kind, at=at, study_id=study_id, detail=detail))


def count_since(connection: Connection, kind: str, *, since: datetime) -> tuple[int, str]:
    """How often something happened since a moment, and the newest detail."""
    matching = (events.c.kind == kind) & (events.c.at >= since)
    count = connection.execute(select(func.count()).select_from(events).where(matching)).scalar_one()
    newest = connection.execute(select(events.c.detail).where(matching).order_by(events.c.id.desc()).limit(1)).scalar()
    return count, newest or ""


def newest_facts(connection: Connection, kind: str, *, study_id: StudyId) -> Mapping[str, Any]:
    """The facts of the last event of a kind that a study had, none where there was none."""
    matching = (events.c.study_id == study_id) & (events.c.kind == kind)
    return connection.execute(select(events.c.facts).where(matching).order_by(events.c.id.desc()).limit(1)).scalar() or {}


def recorded(connection: Connection, chosen: Chosen) -> Iterator[Recorded]:
    """Go through events in the order they were noted; never more than some of them are in memory."""
    last = chosen.after_id or 0
    while found := _some(connection, chosen, after=last):
        yield from found
        last = found[-1].id


def newest_id(connection: Connection) -> int:
    """The number of the newest event, 0 where there is none."""
    found: int = connection.execute(select(func.coalesce(func.max(events.c.id), 0))).scalar_one()
    return found


def _some(connection: Connection, chosen: Chosen, *, after: int) -> list[Recorded]:
    then = (func.coalesce(events.c[name], studies.c[name]).label(name) for name in _WHOSE)
    wanted = (
        select(*(column for column in events.c if column.name not in _WHOSE), studies.c.study_uid, *then)
        .outerjoin(studies, studies.c.id == events.c.study_id)
        .where(events.c.id > after)
        .order_by(events.c.id)
        .limit(_AT_ONCE)
    )
    if chosen.since is not None:
        wanted = wanted.where(events.c.at >= chosen.since)
    if chosen.study_uid is not None:
        wanted = wanted.where(studies.c.study_uid == chosen.study_uid)
    if chosen.kind is not None:
        wanted = wanted.where(events.c.kind == chosen.kind)
    return [
        Recorded(
            id=row["id"],
            event=Event(
                kind=row["kind"], at=row["at"], study_id=row["study_id"], detail=row["detail"], facts=row["facts"] or {}
            ),
            study_uid=row["study_uid"],
            **{name: row[name] for name in _WHOSE},
        )
        for row in connection.execute(wanted).mappings()
    ]
