"""Delivering: what is due at a destination, what becomes of each attempt, and what waits for what."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, exists, func, or_, select, update

from dicom_io.errors import AssociationRejected, DicomError, ObjectRefused, PeerUnreachable
from dicom_io.values import SOPClassUID, SOPInstanceUID
from worker.db import events, schema, studies
from worker.db.reports import ENDED, all_delivered, has_no_file
from worker.db.schema import deliveries, reports
from worker.retry import FIRST_DELAY, LONGEST_DELAY, MAX_ATTEMPTS
from worker.values import (
    DeliveryId,
    DeliveryState,
    DueDelivery,
    StudyId,
)

_AT_ONCE = 64
"""Deliveries of one association: what becomes urgent meanwhile waits for no more than these."""
_GIVEN_UP = (DeliveryState.ON_HOLD, DeliveryState.FAILED)


def due(
    connection: Connection,
    destination: str,
    *,
    now: datetime,
    data_dir: Path,
    state: DeliveryState = DeliveryState.PENDING,
) -> list[DueDelivery]:
    """What a destination should be sent now: the most urgent study first, night work last, each study's reports in order.

    With `DeliveryState.STORED`, what it should be asked to commit to, also where it is on hold for want of an answer.
    """
    wanted = deliveries.c.state == state
    if state is DeliveryState.STORED:
        wanted = or_(wanted, uncommitted())
    chosen = (
        _to_send()
        .where(deliveries.c.destination == destination, wanted, _has_come(deliveries.c.next_attempt_at, now))
        .order_by(schema.studies.c.priority, studies.triage_rank().desc(), reports.c.id)
        .limit(_AT_ONCE)
    )
    return _read(connection, chosen, data_dir)


def is_wanted(connection: Connection, delivery: DueDelivery) -> bool:
    """Whether it is still to be sent: nothing took its report back, and it did not end otherwise."""
    state = connection.execute(select(deliveries.c.state).where(deliveries.c.id == delivery.id)).scalar()
    return state is not None and DeliveryState(state) not in ENDED


def probe(connection: Connection, destination: str, *, now: datetime, data_dir: Path) -> list[DueDelivery]:
    """What to send a destination to see whether it takes again what it was reached with and did not take: one, or nothing yet.

    The least tried comes first: one that is never taken holds the others up once.
    """
    first = select(func.min(deliveries.c.next_attempt_at)).where(_untaken(destination)).scalar_subquery()
    chosen = _to_send().where(_untaken(destination), _has_come(first, now))
    return _read(connection, chosen.order_by(deliveries.c.attempts, deliveries.c.id).limit(1), data_dir)


def release(connection: Connection, destination: str, *, now: datetime) -> int:
    """Make due what a destination did not take, once it took one of them; answer how many. Each has another attempt."""
    released = connection.execute(
        update(deliveries).where(_untaken(destination)).values(state=DeliveryState.PENDING, next_attempt_at=now)
    )
    return released.rowcount


def _untaken(destination: str) -> ColumnElement[bool]:
    held = deliveries.c.state == DeliveryState.ON_HOLD
    return and_(deliveries.c.destination == destination, held, ~deliveries.c.unreachable, ~uncommitted())


def uncommitted() -> ColumnElement[bool]:
    """Deliveries on hold that their destination keeps: it was asked as often as it may be, and is still asked now and then."""
    return and_(deliveries.c.state == DeliveryState.ON_HOLD, deliveries.c.asked >= MAX_ATTEMPTS)


def _has_come(moment: ColumnElement[datetime], now: datetime) -> ColumnElement[bool]:
    # A moment further ahead than any delay was set by a clock that ran ahead.
    return or_(moment <= now, moment > now + LONGEST_DELAY + FIRST_DELAY)


def _to_send() -> Select[Any]:
    return (
        select(
            deliveries.c.id,
            deliveries.c.attempts,
            reports.c.study_id,
            reports.c.path,
            reports.c.sha256,
            reports.c.sop_class_uid,
            reports.c.sop_instance_uid,
        )
        .join(reports, reports.c.id == deliveries.c.report_id)
        .join(schema.studies, schema.studies.c.id == reports.c.study_id)
    )


def _read(connection: Connection, chosen: Select[Any], data_dir: Path) -> list[DueDelivery]:
    return [
        DueDelivery(
            id=DeliveryId(row.id),
            study_id=StudyId(row.study_id),
            sop_class_uid=SOPClassUID(row.sop_class_uid),
            sop_instance_uid=SOPInstanceUID(row.sop_instance_uid),
            path=data_dir / row.path,
            sha256=row.sha256,
            attempts=row.attempts,
        )
        for row in connection.execute(chosen)
    ]


def mark_stored(connection: Connection, delivery: DueDelivery, *, now: datetime) -> None:
    """Note that a destination keeps a report and is to be asked to commit to it, unless it ended otherwise meanwhile.

    From here on its attempts are the questions; how long the destination was away before says nothing of them.
    """
    connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery.id, deliveries.c.state.not_in(ENDED))
        .values(
            state=DeliveryState.STORED,
            attempts=deliveries.c.asked,
            unreachable=False,
            last_error=None,
            next_attempt_at=now,
        )
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


def mark_undelivered(
    connection: Connection, delivery: DueDelivery, error: DicomError, *, next_attempt_at: datetime | None, now: datetime
) -> DeliveryState:
    """Note a failed attempt: due again at a moment, or, where there is none, on hold or given up; answer how it stands.

    Given up is only what the destination says of the object itself. All else may heal: what could not even be tried is due as
    soon as the destination can be reached, what it keeps and does not commit to is asked about further on, and the rest is due
    when it takes one of it (`probe`).
    """
    known = select(deliveries.c.state, deliveries.c.asked, deliveries.c.destination).where(deliveries.c.id == delivery.id)
    row = connection.execute(known.with_for_update()).one()
    before = DeliveryState(row.state)
    if before in {*ENDED, DeliveryState.FAILED}:
        return before  # committed to or taken back meanwhile
    unreachable = isinstance(error, PeerUnreachable | AssociationRejected)
    after = before
    if next_attempt_at is None:
        after = DeliveryState.FAILED if isinstance(error, ObjectRefused) else DeliveryState.ON_HOLD
    stays_there = before is DeliveryState.STORED and after is DeliveryState.ON_HOLD and not unreachable
    connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery.id)
        .values(
            state=after,
            attempts=delivery.attempts + 1,
            last_error=error.in_full,
            unreachable=unreachable,
            next_attempt_at=next_attempt_at or now + LONGEST_DELAY,
            asked=max(row.asked, MAX_ATTEMPTS) if stays_there else row.asked,
        )
    )
    if before is DeliveryState.ON_HOLD and row.asked < MAX_ATTEMPTS:  # it was the probe: what it stands for waits as long
        connection.execute(update(deliveries).where(_untaken(row.destination)).values(next_attempt_at=now + LONGEST_DELAY))
    if after is not before:
        _note(connection, f"delivery_{after}", delivery, at=now, detail=str(error))
    return after


def awaits_answer(connection: Connection, destination: str) -> bool:
    """Whether something waits for a destination that could not be reached."""
    return bool(connection.execute(select(exists().where(_unreached(destination)))).scalar_one())


def destination_answers(connection: Connection, destination: str, *, now: datetime) -> int:
    """Make due what waited for a destination that can be reached again, with all its attempts before it; answer how many."""
    on_hold = and_(deliveries.c.state == DeliveryState.ON_HOLD, ~uncommitted())
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


def destination_answers_as_before(connection: Connection, destination: str) -> None:
    """Note that what failed there did not fail for want of an answer: it keeps its times, or waits for another to be taken."""
    connection.execute(update(deliveries).where(_unreached(destination)).values(unreachable=False))


def _unreached(destination: str) -> ColumnElement[bool]:
    waiting = (DeliveryState.PENDING, DeliveryState.STORED, DeliveryState.ON_HOLD)
    return and_(deliveries.c.destination == destination, deliveries.c.unreachable, deliveries.c.state.in_(waiting))


def retry(connection: Connection, delivery_ids: Sequence[int] | None, *, now: datetime) -> int:
    """Make undelivered reports due at once, with all their attempts before them; answer how many. None: all given up.

    What was taken back stays so, and so does what has no file any more: `not_retried` tells why.
    """
    chosen = deliveries.c.state.in_(_GIVEN_UP) if delivery_ids is None else deliveries.c.id.in_(delivery_ids)
    changed = connection.execute(
        update(deliveries)
        .where(chosen, deliveries.c.state.not_in(ENDED), ~has_no_file())
        .values(state=DeliveryState.PENDING, attempts=0, asked=0, next_attempt_at=now, unreachable=False)
    )
    return changed.rowcount


def not_retried(connection: Connection, delivery_ids: Sequence[int]) -> dict[int, str]:
    """Which of these `retry` leaves as they are, and why in words."""
    rows = connection.execute(
        select(deliveries.c.id, deliveries.c.state, deliveries.c.last_error, has_no_file().label("gone")).where(
            deliveries.c.id.in_(delivery_ids)
        )
    ).all()
    why = dict.fromkeys(sorted(set(delivery_ids)), "there is no such delivery.")
    for row in rows:
        if row.state == DeliveryState.DELIVERED:
            why[row.id] = "it is delivered already."
        elif row.state == DeliveryState.SUPERSEDED:
            why[row.id] = f"it was taken back. {row.last_error or ''}".rstrip()
        elif row.gone:
            why[row.id] = "its file was deleted."
        else:
            del why[row.id]
    return why


def next_due(connection: Connection, destination: str) -> datetime | None:
    """When a destination is next due to be sent something, or asked."""
    waiting = or_(deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.STORED]), uncommitted())
    due_at = select(func.min(deliveries.c.next_attempt_at)).where(deliveries.c.destination == destination, waiting)
    probed_at = select(func.min(deliveries.c.next_attempt_at)).where(_untaken(destination))
    moments = [connection.execute(moment).scalar() for moment in (due_at, probed_at)]
    return min(filter(None, moments), default=None)
