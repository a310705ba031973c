"""Storage commitment: what destinations were asked to vouch for, and what they answered."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, delete, exists, insert, or_, select, update

from dicom_io.commitment import Commitment
from dicom_io.errors import ObjectRefused, PeerRefused, PeerUnavailable
from dicom_io.values import SOPClassUID, SOPInstanceUID
from worker.db import delivering, schema
from worker.db.schema import commitments, deliveries
from worker.retry import MAX_ATTEMPTS, next_attempt
from worker.values import DeliveryId, DeliveryState, DueDelivery, StudyId

_ANSWER_TIME = timedelta(minutes=10)
"""Some archives answer when they have written a tape; the standard sets no limit."""


def add(connection: Connection, transaction_uid: str, destination: str, *, now: datetime) -> None:
    """Note that a destination is about to be asked."""
    connection.execute(insert(commitments).values(transaction_uid=transaction_uid, destination=destination, asked_at=now))


def was_asked(connection: Connection, delivery: DueDelivery, *, now: datetime) -> None:
    """Note that a destination was asked: unless it answers it is asked again, in the end with the delivery on hold."""
    asked = _count_question(connection, delivery, now=now)
    if asked >= MAX_ATTEMPTS:
        error = PeerUnavailable(f"Stored, but not committed to: {asked} attempts, and the last request is unanswered.")
        asked_before = replace(delivery, attempts=asked - 1)
        delivering.mark_undelivered(connection, asked_before, error, next_attempt_at=None, now=now)


def _count_question(connection: Connection, delivery: DueDelivery, *, now: datetime) -> int:
    """Count that a destination was asked of what it keeps; answer how often by now, 0 where it was answered meanwhile."""
    asked = deliveries.c.asked + 1
    counted = connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery.id, or_(deliveries.c.state == DeliveryState.STORED, delivering.uncommitted()))
        .values(asked=asked, attempts=asked, next_attempt_at=now + _ANSWER_TIME, unreachable=False, last_error=None)
        .returning(deliveries.c.asked)
    ).scalar_one_or_none()
    return counted or 0


def settle(connection: Connection, answer: Commitment, *, now: datetime) -> str | None:
    """Write down what a destination answered; what it does not vouch for is sent again.

    An answer counts whenever it comes, also to an earlier request or after the delivery was given up.

    Returns
    -------
    str or None
        The destination, or None where nobody was asked under this transaction.
    """
    request = connection.execute(
        update(commitments)
        .where(commitments.c.transaction_uid == answer.transaction_uid)
        .values(answered_at=now)
        .returning(commitments.c.destination, commitments.c.asked_at)
    ).one_or_none()
    if request is None:
        return None
    destination = str(request.destination)
    waiting = _waiting(connection, destination, {*answer.committed, *answer.failed})
    for uid, (delivery, _) in waiting.items():
        if uid in answer.committed and uid not in answer.failed:
            delivering.mark_delivered(connection, delivery, now=now, committed=True)
    for uid, (delivery, is_asked_about) in waiting.items():
        if uid in answer.failed and is_asked_about:
            _send_again(connection, delivery, answer.failed[uid], asked_at=request.asked_at, now=now)
    return destination


def forget(connection: Connection, *, before: datetime) -> int:
    """Delete the requests of before a moment at whose destinations nothing waits that was sent by then; answer how many."""
    unsettled = exists().where(
        deliveries.c.destination == commitments.c.destination,
        deliveries.c.state.not_in([DeliveryState.DELIVERED, DeliveryState.SUPERSEDED]),
        deliveries.c.report_id == schema.reports.c.id,
        schema.reports.c.made_at <= commitments.c.asked_at,
    )
    return connection.execute(delete(commitments).where(commitments.c.asked_at < before, ~unsettled)).rowcount


def _send_again(connection: Connection, delivery: DueDelivery, reason: str, *, asked_at: datetime, now: datetime) -> None:
    words = f"Stored, but not committed to: {reason}."
    # Counting a question puts the next one off: until then it is due, at a moment before it was asked.
    counted = connection.execute(
        select(deliveries.c.asked).where(deliveries.c.id == delivery.id, deliveries.c.next_attempt_at > asked_at)
    ).scalar_one_or_none()
    asked = counted or _count_question(connection, delivery, now=now)
    again_at = next_attempt(asked, now=now)
    error = ObjectRefused(words) if again_at is None else PeerRefused(words)
    delivering.mark_undelivered(connection, replace(delivery, attempts=asked - 1), error, next_attempt_at=again_at, now=now)
    if again_at is not None:
        connection.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(state=DeliveryState.PENDING))


def _waiting(
    connection: Connection, destination: str, uids: set[SOPInstanceUID]
) -> dict[SOPInstanceUID, tuple[DueDelivery, bool]]:
    """What waits at a destination under these UIDs, and whether it keeps it."""
    rows = connection.execute(
        select(
            deliveries.c.id,
            or_(deliveries.c.state == DeliveryState.STORED, delivering.uncommitted()).label("kept"),
            deliveries.c.attempts,
            schema.reports.c.study_id,
            schema.reports.c.sop_class_uid,
            schema.reports.c.sop_instance_uid,
            schema.reports.c.path,
        )
        .join(schema.reports, schema.reports.c.id == deliveries.c.report_id)
        .where(
            deliveries.c.destination == destination,
            deliveries.c.state.not_in([DeliveryState.DELIVERED, DeliveryState.SUPERSEDED]),
            schema.reports.c.sop_instance_uid.in_(uids),
        )
        .order_by(schema.reports.c.study_id, deliveries.c.id)  # studies are locked, by everybody in this order
    )
    return {
        SOPInstanceUID(row.sop_instance_uid): (
            DueDelivery(
                id=DeliveryId(row.id),
                study_id=StudyId(row.study_id),
                sop_class_uid=SOPClassUID(row.sop_class_uid),
                sop_instance_uid=SOPInstanceUID(row.sop_instance_uid),
                path=Path(row.path),
                attempts=row.attempts,
            ),
            bool(row.kept),
        )
        for row in rows
    }
