"""Which studies nobody needs the files of any more, and the mark that they were deleted."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, exists, func, or_, select, update

from worker.db import events
from worker.db.schema import deliveries, instances, reports, studies
from worker.db.schema import events as event_rows
from worker.db.studies import hold
from worker.values import DeliveryState, StudyId, StudyState

FILES_REMOVED = "files_removed"
"""The files of a study were deleted by the rules for keeping; what was found stays. Facts: user, where somebody asked."""


_UNDELIVERED = deliveries.c.state.not_in([DeliveryState.DELIVERED, DeliveryState.SUPERSEDED])
_IS_REFUSED = (studies.c.state == StudyState.NOT_ANALYSED) & ~studies.c.untold
"""Not analysed, with every destination told that wants to be, or beyond telling."""
A_DAY = timedelta(days=1)
_ABSENT = timedelta(days=7)
"""For so long a worker may note nothing, its clock is believed all the same."""

_RECEIVED = (events.OPENED, events.REOPENED, events.COMPLETE)
_ON_ITS_WAY = deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.STORED])


class Ending(StrEnum):
    """What became of a study that nothing more is done with."""

    FINISHED = "finished"
    """Delivered as a whole, or not analysed with every destination told that wants to be."""
    FAILED = "failed"
    """Given up: nobody was told anything of it."""
    UNDELIVERED = "undelivered"
    """Reported, and its reports go nowhere: there is no destination, or those there are refused them or are away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipients:
    """Who is to be told of studies."""

    destinations: frozenset[str]
    """By name; a delivery to any other goes nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A moment, and the first event that was noted after it."""

    at: datetime
    event_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedStudy:
    """A study that has files and needs them no more."""

    id: StudyId
    study_uid: str
    last_received_at: datetime
    generation: int
    bytes: int
    """What its received files take."""
    ending: Ending
    noted: int
    """The newest event of its receipt; 0 where there is none."""

    def was_received_before(self, threshold: Threshold) -> bool:
        """Whether it was by its date and by its place in the record: a clock that ran behind gave too early a date."""
        return self.last_received_at <= threshold.at and (threshold.event_id is None or self.noted < threshold.event_id)


def clock_is_known(connection: Connection, *, now: datetime) -> bool:
    """Whether something was noted by this clock a day to a week ago, and nothing by another one since.

    A clock that ran ahead or behind, for however short, and a worker that was switched off for longer, are believed again when
    a day has gone by.
    """
    of_this = event_rows.c.at.between(now - A_DAY - _ABSENT, now - A_DAY)
    noted = connection.execute(select(func.max(event_rows.c.id)).where(of_this)).scalar()
    if noted is None:
        return False
    of_another = ~event_rows.c.at.between(now - A_DAY - _ABSENT, now + A_DAY)
    return not connection.execute(select(exists().where(event_rows.c.id > noted, of_another))).scalar_one()


def doubt(connection: Connection, *, now: datetime) -> str | None:
    """What was noted within the last day of files that wait for the clock; None where nothing was."""
    noted = (event_rows.c.kind == events.CLOCK_DOUBTED) & event_rows.c.at.between(now - A_DAY, now)
    return connection.execute(select(event_rows.c.detail).where(noted).order_by(event_rows.c.id.desc()).limit(1)).scalar()


def threshold(connection: Connection, at: datetime, *, now: datetime) -> Threshold:
    """Find where in the record a moment stands."""
    since = (event_rows.c.at > at) & (event_rows.c.at <= now)
    return Threshold(at=at, event_id=connection.execute(select(func.min(event_rows.c.id)).where(since)).scalar())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why files are deleted."""

    words: str
    user: str = ""
    """Who asked for it, where somebody did."""


def kept_bytes(connection: Connection) -> int:
    """What all received files take that are not gone."""
    kept = select(func.coalesce(func.sum(instances.c.size), 0)).where(instances.c.gone_at.is_(None))
    return int(connection.execute(kept).scalar_one())


def ended(connection: Connection, ending: Ending, recipients: Recipients, *, before: datetime) -> list[EndedStudy]:
    """Studies that came to this end, were received before a moment and still have files, be it only reports; by receipt.

    Of undelivered ones, only those of which no report was made since that moment either.
    """
    chosen = _has_ended(ending, recipients)
    if ending is Ending.UNDELIVERED:
        chosen &= ~exists().where(reports.c.study_id == studies.c.id, reports.c.made_at > before)
    columns = (studies.c.id, studies.c.study_uid, studies.c.last_received_at, studies.c.generation)
    of_receipt = (event_rows.c.study_id == studies.c.id) & event_rows.c.kind.in_(_RECEIVED)
    noted = select(func.coalesce(func.max(event_rows.c.id), 0)).where(of_receipt).scalar_subquery()
    kept = select(instances.c.study_id, func.sum(instances.c.size).label("bytes")).where(instances.c.gone_at.is_(None))
    received = kept.group_by(instances.c.study_id).subquery()
    has_reports = exists().where(reports.c.study_id == studies.c.id, reports.c.gone_at.is_(None))
    rows = connection.execute(
        select(*columns, func.coalesce(received.c.bytes, 0).label("bytes"), noted.label("noted"))
        .outerjoin(received, received.c.study_id == studies.c.id)
        .where(chosen, received.c.study_id.is_not(None) | has_reports, studies.c.last_received_at <= before)
        .order_by(studies.c.last_received_at, studies.c.id)
    )
    return [
        EndedStudy(
            id=StudyId(row.id),
            study_uid=row.study_uid,
            last_received_at=row.last_received_at,
            generation=row.generation,
            bytes=int(row.bytes),
            ending=ending,
            noted=row.noted,
        )
        for row in rows
    ]


def mark_removed(
    connection: Connection, study: EndedStudy, recipients: Recipients, *, why: Reason, now: datetime
) -> list[Path]:
    """Note that a study's files are gone, unless it was reopened meanwhile; answer which to delete once that is committed."""
    hold(connection, study.id)
    same = (
        studies.c.id == study.id,
        studies.c.last_received_at == study.last_received_at,
        studies.c.generation == study.generation,
    )
    if connection.execute(select(studies.c.id).where(*same, _has_ended(study.ending, recipients))).first() is None:
        return []
    received = (instances.c.study_id == study.id) & instances.c.gone_at.is_(None)
    made = (reports.c.study_id == study.id) & reports.c.gone_at.is_(None)
    files = connection.execute(select(instances.c.path).where(received)).scalars().all()
    of_reports = connection.execute(select(reports.c.id, reports.c.path).where(made)).all()
    ids, paths = [row.id for row in of_reports], [Path(path) for path in (*files, *(row.path for row in of_reports))]
    connection.execute(update(instances).where(received).values(gone_at=now))
    connection.execute(update(reports).where(reports.c.id.in_(ids)).values(gone_at=now))
    connection.execute(
        update(deliveries)
        .where(deliveries.c.report_id.in_(ids), _UNDELIVERED)
        .values(state=DeliveryState.SUPERSEDED, last_error=f"Its file was deleted: {why.words}.")
    )
    facts, words = {"user": why.user} if why.user else {}, f"{len(paths)} files: {why.words}"
    events.record(connection, events.Event(kind=FILES_REMOVED, at=now, study_id=study.id, detail=words, facts=facts))
    return paths


def _has_ended(ending: Ending, recipients: Recipients) -> ColumnElement[bool]:
    match ending:
        case Ending.FINISHED:
            return or_(studies.c.state == StudyState.DELIVERED, _IS_REFUSED) & ~_waits(_UNDELIVERED)
        case Ending.FAILED:
            return (studies.c.state == StudyState.FAILED) & ~_waits(_UNDELIVERED)
        case Ending.UNDELIVERED:
            on_its_way = _ON_ITS_WAY & deliveries.c.destination.in_(recipients.destinations)
            return (studies.c.state == StudyState.REPORTED) & ~_waits(on_its_way)


def _waits(how: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a report of a study stands so on its way to a destination."""
    return exists().where(reports.c.study_id == studies.c.id, deliveries.c.report_id == reports.c.id, how)
