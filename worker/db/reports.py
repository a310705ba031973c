"""Reports: what was made of each study, for which destinations, and what was taken back."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, and_, exists, select, update

from dicom_io.values import ObjectReference, SeriesUID, SOPClassUID, SOPInstanceUID
from worker.db import schema
from worker.db.database import insert_if_absent
from worker.db.schema import deliveries, reports
from worker.values import (
    DeliveryState,
    KnownReport,
    MadeReport,
    Output,
    ReportId,
    StudyId,
    ToldStudy,
)

ENDED = (DeliveryState.DELIVERED, DeliveryState.SUPERSEDED)
"""A delivery that is neither sent nor asked about any more."""


def newest(connection: Connection, study_id: StudyId, output: Output) -> KnownReport | None:
    """The report that a new one of the same output would supersede."""
    row = (
        connection.execute(select(reports).where(_of_output(study_id, output)).order_by(reports.c.id.desc()).limit(1))
        .mappings()
        .first()
    )
    if row is None:
        return None
    reference = ObjectReference(
        sop_class_uid=SOPClassUID(row["sop_class_uid"]),
        sop_instance_uid=SOPInstanceUID(row["sop_instance_uid"]),
        series_uid=SeriesUID(row["series_uid"]),
    )
    arrived = exists().where(deliveries.c.report_id == row["id"], deliveries.c.state == DeliveryState.DELIVERED)
    waits = exists().where(deliveries.c.report_id == row["id"], deliveries.c.state.not_in(ENDED))
    has_arrived, is_waited_for = connection.execute(select(arrived, waits)).one()
    return KnownReport(
        id=ReportId(row["id"]),
        reference=reference,
        result_key=row["result_key"],
        path=Path(row["path"]),
        sha256=row["sha256"],
        gone=row["gone_at"] is not None,
        awaited=is_waited_for or not has_arrived,
    )


def keep_current(connection: Connection, report: KnownReport, study: ToldStudy) -> None:
    """Note that a report still tells what a study's newest analysis came to."""
    connection.execute(update(reports).where(reports.c.id == report.id).values(generation=study.generation))


def senders(connection: Connection, study_id: StudyId) -> frozenset[str]:
    """The AE titles that sent images of a study."""
    sent = select(schema.instances.c.calling_ae_title).where(schema.instances.c.study_id == study_id).distinct()
    return frozenset(connection.execute(sent).scalars())


def was_made(connection: Connection, study_id: StudyId, output: Output, result_key: str) -> bool:
    """Whether this output was made of this very result, whatever came since."""
    same = exists().where(_of_output(study_id, output), reports.c.result_key == result_key)
    return bool(connection.execute(select(same)).scalar_one())


def _of_output(study_id: StudyId, output: Output) -> ColumnElement[bool]:
    return and_(
        reports.c.study_id == study_id,
        reports.c.kind == output.kind,
        reports.c.sop_class_uid == output.sop_class_uid,
        reports.c.language == output.language,
    )


def supersede(connection: Connection, study_id: StudyId, *, why: str, output: Output | None = None) -> None:
    """Send no more of what a study's destinations still wait for, of one output or of all.

    Nor is a destination asked any more to commit to it: what it had lost would be sent again.
    """
    outdated = select(reports.c.id).where(reports.c.study_id == study_id if output is None else _of_output(study_id, output))
    connection.execute(
        update(deliveries)
        .where(deliveries.c.report_id.in_(outdated), deliveries.c.state.not_in(ENDED))
        .values(state=DeliveryState.SUPERSEDED, last_error=why)
    )


def add(connection: Connection, study: ToldStudy, report: MadeReport, *, now: datetime) -> ReportId:
    """Enter a new report; what was not sent of the output's older ones is not sent any more."""
    supersede(connection, study.id, output=report.output, why="A newer report came before this one was delivered.")
    added = insert_if_absent(
        connection,
        reports,
        {
            "study_id": study.id,
            "generation": study.generation,
            "kind": report.output.kind,
            "language": report.output.language,
            "sop_instance_uid": report.sop_instance_uid,
            "sop_class_uid": report.output.sop_class_uid,
            "series_uid": report.series_uid,
            "result_key": report.result_key,
            "path": str(report.path),
            "sha256": report.sha256,
            "made_at": now,
        },
    )
    if added is None:
        raise LookupError("a report with this UID is there already")
    return ReportId(added)


def queue(connection: Connection, report_id: ReportId, destinations: Sequence[str], *, now: datetime) -> None:
    """Make a report due at each destination, once; where it was taken back and is the newest again, it is due again."""
    for destination in destinations:
        row = {"report_id": report_id, "destination": destination, "next_attempt_at": now}
        if insert_if_absent(connection, deliveries, row) is None:
            taken_back = (deliveries.c.report_id == report_id) & (deliveries.c.destination == destination)
            connection.execute(
                update(deliveries)
                .where(taken_back, deliveries.c.state == DeliveryState.SUPERSEDED, ~has_no_file())
                .values(state=DeliveryState.PENDING, attempts=0, asked=0, next_attempt_at=now, last_error=None)
            )


def all_delivered(connection: Connection, study_id: StudyId, *, none_wanted: bool = False) -> bool:
    """Whether a study's reports were to go somewhere and all that were not superseded have arrived.

    Where `none_wanted`, no destination wants anything of its newest result: then it is enough that nothing is on its way.
    """
    states = connection.execute(
        select(deliveries.c.state).join(reports, reports.c.id == deliveries.c.report_id).where(reports.c.study_id == study_id)
    ).scalars()
    valid = set(states) - {DeliveryState.SUPERSEDED}
    return valid == {DeliveryState.DELIVERED} or (none_wanted and not valid)


def has_no_file() -> ColumnElement[bool]:
    """Whether the file of a delivery's report was deleted."""
    return exists().where(reports.c.id == deliveries.c.report_id, reports.c.gone_at.is_not(None))
