"""Which studies nobody needs the files of any more, and the mark that they were deleted."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, update

from worker.db import events
from worker.db.schema import deliveries, instances, reports, studies
from worker.db.studies import hold
from worker.retry import MAX_ATTEMPTS
from worker.values import DeliveryState, Output, StudyId, StudyState

FILES_REMOVED = "files_removed"
"""The files of a study were deleted by the rules for keeping; what was found stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedStudy:
    """A study that is finished, and everything of it delivered."""

    id: StudyId
    study_uid: str
    last_received_at: datetime
    bytes: int
    """What its received files take."""


def kept_bytes(connection: Connection) -> int:
    """What all received files take that are not gone."""
    kept = select(func.coalesce(func.sum(instances.c.size), 0)).where(instances.c.gone_at.is_(None))
    return int(connection.execute(kept).scalar_one())


def finished(connection: Connection, refusals: Collection[Output], *, received_before: datetime) -> list[FinishedStudy]:
    """Studies that still have files and need them no more, the one that was received first before all others.

    Parameters
    ----------
    refusals
        What destinations are to be sent of a study that was not analysed: it is not finished before.
    """
    rows = connection.execute(
        select(studies.c.id, studies.c.study_uid, studies.c.last_received_at, func.sum(instances.c.size).label("bytes"))
        .join(instances, instances.c.study_id == studies.c.id)
        .where(_is_finished(refusals), instances.c.gone_at.is_(None), studies.c.last_received_at <= received_before)
        .group_by(studies.c.id, studies.c.study_uid, studies.c.last_received_at)
        .order_by(studies.c.last_received_at, studies.c.id)
    )
    return [
        FinishedStudy(id=StudyId(row.id), study_uid=row.study_uid, last_received_at=row.last_received_at, bytes=int(row.bytes))
        for row in rows
    ]


def mark_removed(
    connection: Connection, study: FinishedStudy, refusals: Collection[Output], *, why: str, now: datetime
) -> list[Path]:
    """Note that a study's files are gone, unless it was reopened meanwhile; answer which to delete once that is committed."""
    hold(connection, study.id)
    same = (studies.c.id == study.id) & (studies.c.last_received_at == study.last_received_at)
    if connection.execute(select(studies.c.id).where(same, _is_finished(refusals))).first() is None:
        return []
    received = (instances.c.study_id == study.id) & instances.c.gone_at.is_(None)
    made = (reports.c.study_id == study.id) & reports.c.gone_at.is_(None) & ~_may_be_sent_again()
    paths = [
        Path(path)
        for chosen in (select(instances.c.path).where(received), select(reports.c.path).where(made))
        for path in connection.execute(chosen).scalars()
    ]
    connection.execute(update(instances).where(received).values(gone_at=now))
    connection.execute(update(reports).where(made).values(gone_at=now))
    events.add(connection, FILES_REMOVED, at=now, study_id=study.id, detail=f"{len(paths)} files: {why}")
    return paths


def _is_finished(refusals: Collection[Output]) -> ColumnElement[bool]:
    """Delivered as a whole, or not analysed with every destination told that wants to be."""
    undelivered = exists().where(
        reports.c.study_id == studies.c.id,
        deliveries.c.report_id == reports.c.id,
        deliveries.c.state.not_in([DeliveryState.DELIVERED, DeliveryState.SUPERSEDED]),
    )
    told = [
        exists().where(
            reports.c.study_id == studies.c.id,
            reports.c.generation == studies.c.generation,
            reports.c.kind == output.kind,
            reports.c.language == output.language,
        )
        for output in refusals
    ]
    refused = and_(
        studies.c.state == StudyState.NOT_ANALYSED, or_(studies.c.attempts >= MAX_ATTEMPTS, and_(studies.c.id > 0, *told))
    )
    return and_(or_(studies.c.state == StudyState.DELIVERED, refused), ~undelivered)


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
