"""What monitoring asks the database: how many of what, and since when the oldest waits."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from worker.db.schema import deliveries, reports, studies
from worker.values import DeliveryState, StudyState


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that have something in common."""

    count: int
    oldest: datetime
    newest: datetime


def studies_by_state(connection: Connection) -> Mapping[StudyState, Group]:
    """Studies, by the moment of their last image."""
    moment = studies.c.last_received_at
    rows = connection.execute(
        select(studies.c.state, func.count(), func.min(moment), func.max(moment)).group_by(studies.c.state)
    )
    return {StudyState(state): Group(count=count, oldest=oldest, newest=newest) for state, count, oldest, newest in rows}


def undelivered(connection: Connection) -> Mapping[tuple[str, DeliveryState], Group]:
    """Reports that a destination does not keep yet, by destination and state, by the moment when they were made."""
    moment = reports.c.made_at
    rows = connection.execute(
        select(deliveries.c.destination, deliveries.c.state, func.count(), func.min(moment), func.max(moment))
        .join(reports, reports.c.id == deliveries.c.report_id)
        .where(deliveries.c.state.not_in([DeliveryState.DELIVERED, DeliveryState.SUPERSEDED]))
        .group_by(deliveries.c.destination, deliveries.c.state)
    )
    return {
        (destination, DeliveryState(state)): Group(count=count, oldest=oldest, newest=newest)
        for destination, state, count, oldest, newest in rows
    }
