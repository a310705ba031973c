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
class EndedStudy:
    """A study that has files and needs them no more."""

    id: StudyId
    study_uid: str
    last_received_at: datetime
    bytes: int
    """What its received files take."""
    failed: bool
    """Whether it was given up; otherwise it is finished, and everything of it delivered."""


def kept_bytes(connection: Connection) -> int:
    """What all received files take that are not gone."""
    kept = select(func.coalesce(func.sum(instances.c.size), 0)).where(instances.c.gone_at.is_(None))
    return int(connection.execute(kept).scalar_one())


def finished(connection: Connection, refusals: Collection[Output], *, received_before: datetime) -> list[EndedStudy]:
    """Studies that still have files and need them no more, the one that was received first before all others.

    Parameters
    ----------
    refusals
        What destinations are to be sent of a study that was not analysed: it is not finished before.
    """
    return _with_files(connection, _is_finished(refusals), received_before=received_before, failed=False)


def failed(connection: Connection, *, received_before: datetime) -> list[EndedStudy]:
    """Studies that were given up and still have files, in the same order: nobody was told anything of them."""
    return _with_files(connection, _has_failed(), received_before=received_before, failed=True)


def _with_files(
    connection: Connection, chosen: ColumnElement[bool], *, received_before: datetime, failed: bool
) -> list[EndedStudy]:
    rows = connection.execute(
        select(studies.c.id, studies.c.study_uid, studies.c.last_received_at, func.sum(instances.c.size).label("bytes"))
        .join(instances, instances.c.study_id == studies.c.id)
        .where(chosen, instances.c.gone_at.is_(None), studies.c.last_received_at <= received_before)
        .group_by(studies.c.id, studies.c.study_uid, studies.c.last_received_at)
        .order_by(studies.c.last_received_at, studies.c.id)
    )
    return [
        EndedStudy(
            id=StudyId(row.id),
            study_uid=row.study_uid,
            last_received_at=row.last_received_at,
            bytes=int(row.bytes),
            failed=failed,
        )
        for row in rows
    ]


def mark_removed(
    connection: Connection, study: EndedStudy, refusals: Collection[Output], *, why: str, now: datetime
) -> list[Path]:
    """Note that a study's files are gone, unless it was reopened meanwhile; answer which to delete once that is committed."""
    hold(connection, study.id)
    same = (studies.c.id == study.id) & (studies.c.last_received_at == study.last_received_at)
    has_ended = _has_failed() if study.failed else _is_finished(refusals)
    if connection.execute(select(studies.c.id).where(same, has_ended)).first() is None:
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
    return and_(or_(studies.c.state == StudyState.DELIVERED, refused), ~_is_undelivered())


def _has_failed() -> ColumnElement[bool]:
    """Given up, with nothing on its way of what an earlier analysis came to."""
    return and_(studies.c.state == StudyState.FAILED, ~_is_undelivered())


def _is_undelivered() -> ColumnElement[bool]:
    return exists().where(
        reports.c.study_id == studies.c.id,
        deliveries.c.report_id == reports.c.id,
        deliveries.c.state.not_in([DeliveryState.DELIVERED, DeliveryState.SUPERSEDED]),
    )


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
