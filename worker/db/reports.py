"""Reports and their way to each destination."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, func, select, update

from dicom_io.values import ObjectReference, SeriesUID, SOPClassUID, SOPInstanceUID
from worker.db import events, studies
from worker.db.database import insert_if_absent
from worker.db.schema import deliveries, reports
from worker.values import (
    AnalysedStudy,
    DeliveryId,
    DeliveryState,
    DueDelivery,
    MadeReport,
    ReportId,
    StudyId,
)


def newest(connection: Connection, study_id: StudyId, sop_class_uid: str) -> ObjectReference | None:
    """The report of a class that a new one would supersede."""
    row = (
        connection.execute(
            select(reports)
            .where(reports.c.study_id == study_id, reports.c.sop_class_uid == sop_class_uid)
            .order_by(reports.c.id.desc())
            .limit(1)
        )
        .mappings()
        .first()
    )
    if row is None:
        return None
    return ObjectReference(
        sop_class_uid=SOPClassUID(row["sop_class_uid"]),
        sop_instance_uid=SOPInstanceUID(row["sop_instance_uid"]),
        series_uid=SeriesUID(row["series_uid"]),
    )


def find(connection: Connection, sop_instance_uid: str) -> ReportId | None:
    """The report with this UID, if it was made before."""
    found = connection.execute(select(reports.c.id).where(reports.c.sop_instance_uid == sop_instance_uid)).scalar()
    return None if found is None else ReportId(found)


def add(connection: Connection, study: AnalysedStudy, report: MadeReport, *, now: datetime) -> ReportId:
    """Enter a report, once."""
    added = insert_if_absent(
        connection,
        reports,
        {
            "study_id": study.id,
            "generation": study.generation,
            "kind": report.kind,
            "sop_instance_uid": report.sop_instance_uid,
            "sop_class_uid": report.sop_class_uid,
            "series_uid": report.series_uid,
            "path": str(report.path),
            "made_at": now,
        },
    )
    found = added if added is not None else find(connection, report.sop_instance_uid)
    if found is None:
        raise LookupError("the report is neither new nor known")
    return ReportId(found)


def queue(connection: Connection, report_id: ReportId, destinations: Sequence[str], *, now: datetime) -> None:
    """Make a report due at each destination, once."""
    for destination in destinations:
        insert_if_absent(connection, deliveries, {"report_id": report_id, "destination": destination, "next_attempt_at": now})


def due(connection: Connection, destination: str, *, now: datetime, data_dir: Path, limit: int) -> list[DueDelivery]:
    """What a destination should be sent now, the oldest report first."""
    rows = connection.execute(
        select(deliveries.c.id, deliveries.c.attempts, reports.c.study_id, reports.c.path)
        .join(reports, reports.c.id == deliveries.c.report_id)
        .where(
            deliveries.c.destination == destination,
            deliveries.c.state == DeliveryState.PENDING,
            deliveries.c.next_attempt_at <= now,
        )
        .order_by(reports.c.id)
        .limit(limit)
    )
    return [
        DueDelivery(id=DeliveryId(row.id), study_id=StudyId(row.study_id), path=data_dir / row.path, attempts=row.attempts)
        for row in rows
    ]


def mark_delivered(connection: Connection, delivery: DueDelivery, *, now: datetime) -> None:
    """Note that a destination keeps a report, and the study delivered when it was the last."""
    connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery.id)
        .values(state=DeliveryState.DELIVERED, attempts=delivery.attempts + 1, last_error=None, delivered_at=now)
    )
    if nothing_pending(connection, delivery.study_id):
        studies.mark_delivered(connection, delivery.study_id, now=now)


def nothing_pending(connection: Connection, study_id: StudyId) -> bool:
    """Whether a study's reports were to go somewhere and all have arrived."""
    states = connection.execute(
        select(deliveries.c.state).join(reports, reports.c.id == deliveries.c.report_id).where(reports.c.study_id == study_id)
    ).scalars()
    return set(states) == {DeliveryState.DELIVERED}


def mark_undelivered(
    connection: Connection, delivery: DueDelivery, error: str, *, next_attempt_at: datetime | None, now: datetime
) -> None:
    """Note a failed attempt: due again at a moment, or given up where there is none."""
    values: Mapping[str, object] = {"attempts": delivery.attempts + 1, "last_error": error}
    if next_attempt_at is None:
        values = {**values, "state": DeliveryState.FAILED}
        events.add(connection, "delivery_failed", at=now, study_id=delivery.study_id, detail=error)
    else:
        values = {**values, "next_attempt_at": next_attempt_at}
    connection.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(**values))


def count_undelivered(connection: Connection) -> dict[tuple[str, DeliveryState], int]:
    """How many reports have not reached a destination, by its name and their state."""
    rows = connection.execute(
        select(deliveries.c.destination, deliveries.c.state, func.count())
        .where(deliveries.c.state != DeliveryState.DELIVERED)
        .group_by(deliveries.c.destination, deliveries.c.state)
    )
    return {(destination, DeliveryState(state)): count for destination, state, count in rows}


def retry(connection: Connection, delivery_ids: Sequence[int] | None, *, now: datetime) -> int:
    """Make undelivered reports due at once, with all their attempts before them; answer how many. None: all given up."""
    chosen = deliveries.c.state == DeliveryState.FAILED
    if delivery_ids is not None:
        chosen = deliveries.c.id.in_(delivery_ids) & (deliveries.c.state != DeliveryState.DELIVERED)
    changed = connection.execute(
        update(deliveries).where(chosen).values(state=DeliveryState.PENDING, attempts=0, next_attempt_at=now)
    )
    return changed.rowcount


def next_due(connection: Connection, destination: str) -> datetime | None:
    """When a destination is next due to be sent something."""
    found: datetime | None = connection.execute(
        select(deliveries.c.next_attempt_at)
        .where(deliveries.c.destination == destination, deliveries.c.state == DeliveryState.PENDING)
        .order_by(deliveries.c.next_attempt_at)
        .limit(1)
    ).scalar()
    return found
