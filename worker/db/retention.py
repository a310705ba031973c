"""Which studies nobody needs the files of any more, and the mark that they were deleted."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, exists, func, or_, select, update

from worker.db import events
from worker.db.schema import deliveries, instances, reports, studies
from worker.db.studies import hold
from worker.values import DeliveryState, StudyId, StudyState

FILES_REMOVED = "files_removed"
"""The files of a study were deleted by the rules for keeping; what was found stays."""


_UNDELIVERED = deliveries.c.state.not_in([DeliveryState.DELIVERED, DeliveryState.SUPERSEDED])
_IS_REFUSED = (studies.c.state == StudyState.NOT_ANALYSED) & ~studies.c.untold
"""Not analysed, with every destination told that wants to be, or beyond telling."""
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
class EndedStudy:
    """A study that has files and needs them no more."""

    id: StudyId
    study_uid: str
    last_received_at: datetime
    generation: int
    bytes: int
    """What its received files take."""
    ending: Ending


def kept_bytes(connection: Connection) -> int:
    """What all received files take that are not gone."""
    kept = select(func.coalesce(func.sum(instances.c.size), 0)).where(instances.c.gone_at.is_(None))
    return int(connection.execute(kept).scalar_one())


def ended(connection: Connection, ending: Ending, recipients: Recipients, *, before: datetime) -> list[EndedStudy]:
    """Studies that came to this end, were received before a moment and still have files; the one received first is first.

    Of undelivered ones, only those of which no report was made since that moment either.
    """
    chosen = _has_ended(ending, recipients)
    if ending is Ending.UNDELIVERED:
        chosen &= ~exists().where(reports.c.study_id == studies.c.id, reports.c.made_at > before)
    columns = (studies.c.id, studies.c.study_uid, studies.c.last_received_at, studies.c.generation)
    rows = connection.execute(
        select(*columns, func.sum(instances.c.size).label("bytes"))
        .join(instances, instances.c.study_id == studies.c.id)
        .where(chosen, instances.c.gone_at.is_(None), studies.c.last_received_at <= before)
        .group_by(*columns)
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
        )
        for row in rows
    ]


def mark_removed(connection: Connection, study: EndedStudy, recipients: Recipients, *, why: str, now: datetime) -> list[Path]:
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
    made = (reports.c.study_id == study.id) & reports.c.gone_at.is_(None) & ~_may_be_sent_again()
    files = connection.execute(select(instances.c.path).where(received)).scalars().all()
    of_reports = connection.execute(select(reports.c.id, reports.c.path).where(made)).all()
    ids, paths = [row.id for row in of_reports], [Path(path) for path in (*files, *(row.path for row in of_reports))]
    connection.execute(update(instances).where(received).values(gone_at=now))
    connection.execute(update(reports).where(reports.c.id.in_(ids)).values(gone_at=now))
    connection.execute(
        update(deliveries)
        .where(deliveries.c.report_id.in_(ids), _UNDELIVERED)
        .values(state=DeliveryState.SUPERSEDED, last_error=f"Its file was deleted: {why}.")
    )
    events.add(connection, FILES_REMOVED, at=now, study_id=study.id, detail=f"{len(paths)} files: {why}")
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


def _may_be_sent_again() -> ColumnElement[bool]:
    """Whether a report was taken back before it was sent and is the newest of its output: the same result brings it back."""
    newer = reports.alias("newer")
    taken_back = exists().where(deliveries.c.report_id == reports.c.id, deliveries.c.state == DeliveryState.SUPERSEDED)
    superseded = exists().where(
        newer.c.study_id == reports.c.study_id,
        newer.c.kind == reports.c.kind,
        newer.c.sop_class_uid == reports.c.sop_class_uid,
        newer.c.language == reports.c.language,
        newer.c.id > reports.c.id,
    )
    return taken_back & ~superseded
