"""Reports and their way to each destination."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, or_, select, update

from dicom_io.errors import AssociationRejected, DicomError, PeerBusy, PeerUnreachable
from dicom_io.values import ObjectReference, SeriesUID, SOPClassUID, SOPInstanceUID
from worker.db import events, schema, studies
from worker.db.database import insert_if_absent
from worker.db.schema import deliveries, reports
from worker.retry import FIRST_DELAY, LONGEST_DELAY
from worker.values import (
    DeliveryId,
    DeliveryState,
    DueDelivery,
    KnownReport,
    MadeReport,
    Output,
    ReportId,
    StudyId,
    ToldStudy,
)

_AT_ONCE = 64
"""Deliveries of one association: what becomes urgent meanwhile waits for no more than these."""
_UNSENT = (DeliveryState.PENDING, DeliveryState.ON_HOLD, DeliveryState.FAILED)
_GIVEN_UP = (DeliveryState.ON_HOLD, DeliveryState.FAILED)


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
    lost = row["gone_at"] is not None and not connection.execute(select(arrived)).scalar_one()
    return KnownReport(id=ReportId(row["id"]), reference=reference, result_key=row["result_key"], lost=lost)


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
    """Send no more of what a study's destinations still wait for, of one output or of all."""
    outdated = select(reports.c.id).where(reports.c.study_id == study_id if output is None else _of_output(study_id, output))
    connection.execute(
        update(deliveries)
        .where(deliveries.c.report_id.in_(outdated), deliveries.c.state.in_(_UNSENT))
        .values(state=DeliveryState.SUPERSEDED, last_error=why)
    )


def add(connection: Connection, study: ToldStudy, report: MadeReport, *, now: datetime) -> ReportId:
    """Enter a new report; what was not sent of the output's older ones is not sent any more."""
    supersede(connection, study.id, output=report.output, why="A newer report came before this one was sent.")
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
                .where(taken_back, deliveries.c.state == DeliveryState.SUPERSEDED, ~_has_no_file())
                .values(state=DeliveryState.PENDING, attempts=0, next_attempt_at=now, last_error=None)
            )


def due(
    connection: Connection,
    destination: str,
    *,
    now: datetime,
    data_dir: Path,
    state: DeliveryState = DeliveryState.PENDING,
) -> list[DueDelivery]:
    """What a destination should be sent now: the most urgent study first, night work last, each study's reports in order.

    With `DeliveryState.STORED`, what it should be asked to commit to.
    """
    rows = connection.execute(
        select(
            deliveries.c.id,
            deliveries.c.attempts,
            reports.c.study_id,
            reports.c.path,
            reports.c.sop_class_uid,
            reports.c.sop_instance_uid,
        )
        .join(reports, reports.c.id == deliveries.c.report_id)
        .join(schema.studies, schema.studies.c.id == reports.c.study_id)
        .where(
            deliveries.c.destination == destination,
            deliveries.c.state == state,
            or_(deliveries.c.next_attempt_at <= now, deliveries.c.next_attempt_at > now + LONGEST_DELAY + FIRST_DELAY),
        )
        .order_by(schema.studies.c.priority, studies.triage_rank().desc(), reports.c.id)
        .limit(_AT_ONCE)
    )
    return [
        DueDelivery(
            id=DeliveryId(row.id),
            study_id=StudyId(row.study_id),
            sop_class_uid=SOPClassUID(row.sop_class_uid),
            sop_instance_uid=SOPInstanceUID(row.sop_instance_uid),
            path=data_dir / row.path,
            attempts=row.attempts,
        )
        for row in rows
    ]


def mark_stored(connection: Connection, delivery: DueDelivery, *, now: datetime) -> None:
    """Note that a destination keeps a report and is to be asked to commit to it."""
    connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery.id)
        .values(state=DeliveryState.STORED, unreachable=False, last_error=None, next_attempt_at=now)
    )


def mark_delivered(connection: Connection, delivery: DueDelivery, *, now: datetime, committed: bool = False) -> None:
    """Note that a destination keeps a report, and the study delivered when it was the last."""
    studies.hold(connection, delivery.study_id)  # two destinations that end at once must see each other
    connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery.id)
        .values(
            state=DeliveryState.DELIVERED,
            attempts=delivery.attempts + 1,
            unreachable=False,
            last_error=None,
            delivered_at=now,
            committed=committed,
        )
    )
    _note(connection, events.SENT, delivery, at=now)
    if all_delivered(connection, delivery.study_id):
        studies.mark_delivered(connection, delivery.study_id, now=now)


def _note(connection: Connection, kind: str, delivery: DueDelivery, *, at: datetime, detail: str = "") -> None:
    """Note what became of a report at its destination."""
    report = connection.execute(
        select(deliveries.c.destination, reports.c.kind, reports.c.sop_class_uid, reports.c.sop_instance_uid)
        .join(reports, reports.c.id == deliveries.c.report_id)
        .where(deliveries.c.id == delivery.id)
    ).mappings()
    facts = dict(report.one())
    words = f"{facts['kind']} to {facts['destination']}" + (f": {detail}" if detail else "")
    events.record(connection, events.Event(kind=kind, at=at, study_id=delivery.study_id, detail=words, facts=facts))


def all_delivered(connection: Connection, study_id: StudyId) -> bool:
    """Whether a study's reports were to go somewhere and all that were not superseded have arrived."""
    states = connection.execute(
        select(deliveries.c.state).join(reports, reports.c.id == deliveries.c.report_id).where(reports.c.study_id == study_id)
    ).scalars()
    return set(states) - {DeliveryState.SUPERSEDED} == {DeliveryState.DELIVERED}


def mark_undelivered(
    connection: Connection, delivery: DueDelivery, error: DicomError, *, next_attempt_at: datetime | None, now: datetime
) -> None:
    """Note a failed attempt: due again at a moment, or given up where there is none.

    What could not even be tried, because the destination cannot be reached, is due as soon as it can; what a destination was
    too busy for ten times, when it is seen to answer.
    """
    unreachable = isinstance(error, PeerUnreachable | AssociationRejected)
    # A full archive answers all the while: it is waited for like one that is away, only not before the last attempt.
    waits = unreachable or (isinstance(error, PeerBusy) and next_attempt_at is None)
    values: Mapping[str, object] = {
        "attempts": delivery.attempts + 1,
        "last_error": error.in_full,
        "unreachable": waits,
    }
    given_up = DeliveryState.ON_HOLD if waits else DeliveryState.FAILED
    values = {**values, **({"state": given_up} if next_attempt_at is None else {"next_attempt_at": next_attempt_at})}
    waiting = (deliveries.c.id == delivery.id) & deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.STORED])
    noted = connection.execute(update(deliveries).where(waiting).values(**values)).rowcount
    if noted and next_attempt_at is None:  # what was committed to or superseded meanwhile has not failed
        _note(connection, f"delivery_{given_up}", delivery, at=now, detail=str(error))


def awaits_answer(connection: Connection, destination: str) -> bool:
    """Whether something waits for a destination that could not be reached."""
    return bool(connection.execute(select(exists().where(_unreached(destination)))).scalar_one())


def destination_answers(connection: Connection, destination: str, *, now: datetime) -> int:
    """Make due what waited for a destination that can be reached again; answer how many."""
    on_hold = deliveries.c.state == DeliveryState.ON_HOLD
    resumed = connection.execute(
        update(deliveries)
        .where(_unreached(destination))
        .values(
            state=case((on_hold, DeliveryState.PENDING.value), else_=deliveries.c.state),
            attempts=case((on_hold, 0), else_=deliveries.c.attempts),
            next_attempt_at=now,
            unreachable=False,
        )
    )
    return resumed.rowcount


def _unreached(destination: str) -> ColumnElement[bool]:
    waiting = (DeliveryState.PENDING, DeliveryState.STORED, DeliveryState.ON_HOLD)
    return and_(deliveries.c.destination == destination, deliveries.c.unreachable, deliveries.c.state.in_(waiting))


def count_undelivered(connection: Connection) -> dict[tuple[str, DeliveryState], int]:
    """How many reports have not reached a destination, by its name and their state."""
    rows = connection.execute(
        select(deliveries.c.destination, deliveries.c.state, func.count())
        .where(deliveries.c.state != DeliveryState.DELIVERED)
        .group_by(deliveries.c.destination, deliveries.c.state)
    )
    return {(destination, DeliveryState(state)): count for destination, state, count in rows}


def retry(connection: Connection, delivery_ids: Sequence[int] | None, *, now: datetime) -> int:
    """Make undelivered reports due at once, with all their attempts before them; answer how many. None: all given up.

    Those whose files are gone stay as they are.
    """
    chosen: ColumnElement[bool] = deliveries.c.state.in_(_GIVEN_UP)
    if delivery_ids is not None:
        chosen = deliveries.c.id.in_(delivery_ids) & (deliveries.c.state != DeliveryState.DELIVERED)
    changed = connection.execute(
        update(deliveries)
        .where(chosen, ~_has_no_file())
        .values(state=DeliveryState.PENDING, attempts=0, next_attempt_at=now, unreachable=False)
    )
    return changed.rowcount


def _has_no_file() -> ColumnElement[bool]:
    return exists().where(reports.c.id == deliveries.c.report_id, reports.c.gone_at.is_not(None))


def next_due(connection: Connection, destination: str) -> datetime | None:
    """When a destination is next due to be sent something."""
    found: datetime | None = connection.execute(
        select(deliveries.c.next_attempt_at)
        .where(
            deliveries.c.destination == destination,
            deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.STORED]),
        )
        .order_by(deliveries.c.next_attempt_at)
        .limit(1)
    ).scalar()
    return found
