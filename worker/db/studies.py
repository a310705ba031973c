"""Studies and their states: completion, moving on, going back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, exists, func, or_, select, update

from worker.db import events, evidence
from worker.db.evidence import NO_EVIDENCE, Evidence
from worker.db.schema import instances, predictions, studies
from worker.values import (
    AnalysedStudy,
    ModelIdentity,
    ModelRole,
    StudyId,
    StudyState,
    Triage,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyProgress:
    """What the completion rule looks at."""

    id: StudyId
    last_received_at: datetime
    senders: frozenset[str] = frozenset()
    """Calling AE titles; none where no sender differs from another."""
    evidence: Evidence = NO_EVIDENCE


def arriving(connection: Connection, *, with_senders: bool = False) -> list[StudyProgress]:
    """Studies that may still grow, the longest quiet first."""
    said = evidence.of_arriving(connection)
    senders = evidence.senders_of_arriving(connection) if with_senders else {}
    rows = connection.execute(
        select(studies.c.id, studies.c.last_received_at)
        .where(studies.c.state == StudyState.ARRIVING)
        .order_by(studies.c.last_received_at)
    )
    return [
        StudyProgress(
            id=StudyId(row.id),
            last_received_at=row.last_received_at,
            senders=senders.get(StudyId(row.id), frozenset()),
            evidence=said.get(StudyId(row.id), NO_EVIDENCE),
        )
        for row in rows
    ]


def mark_ready(connection: Connection, progress: StudyProgress, *, now: datetime, why: str = "") -> bool:
    """Call a study complete, unless another image came meanwhile; answer whether it is. `why` goes into its history."""
    changed = connection.execute(
        update(studies)
        .where(
            studies.c.id == progress.id,
            studies.c.state == StudyState.ARRIVING,
            studies.c.last_received_at == progress.last_received_at,
        )
        .values(state=StudyState.READY, generation=studies.c.generation + 1, completed_at=now)
    )
    if changed.rowcount == 1:
        facts = _received(connection, progress.id, after=_last_turn(connection, progress.id))
        event = events.Event(kind=events.COMPLETE, at=now, study_id=progress.id, detail=why, facts=facts)
        events.record(connection, event)
        return True
    return False


def _last_turn(connection: Connection, study_id: StudyId) -> int:
    """The turn of the image that came last before a study was complete last; 0: it never was, or nobody noted it."""
    facts = events.newest_facts(connection, events.COMPLETE, study_id=study_id)
    return int(facts.get("turn", 0))


def _received(connection: Connection, study_id: StudyId, *, after: int) -> dict[str, Any]:
    """Who sent a study's images that came after a turn, from where, how many, and the turn of the last."""
    sender = (instances.c.calling_ae_title, instances.c.peer_address)
    rows = connection.execute(
        select(*sender, func.count().label("images"), func.max(instances.c.turn).label("turn"))
        .where(instances.c.study_id == study_id, instances.c.turn > after)
        .group_by(*sender)
        .order_by(*sender)
    ).all()
    senders = [{"ae_title": row.calling_ae_title, "address": row.peer_address, "instances": row.images} for row in rows]
    if not rows:  # an image that is known came again, for a file that was damaged
        senders = [{**events.newest_facts(connection, events.REOPENED, study_id=study_id), "instances": 0}]
    return {"senders": senders, "turn": max((row.turn for row in rows), default=after)}


def advance_state(
    connection: Connection, study: AnalysedStudy, state: StudyState, *, reason: str | None, now: datetime
) -> bool:
    """Move an analysed study on, unless it was reopened meanwhile; answer whether it moved."""
    changed = connection.execute(
        update(studies)
        .where(
            studies.c.id == study.id,
            studies.c.generation == study.generation,
            studies.c.state == StudyState.ANALYSED,
        )
        .values(state=state, reason=reason)
    )
    if changed.rowcount == 0:
        return False
    events.add(connection, state.value, at=now, study_id=study.id, detail=reason or "")
    return True


def mark_delivered(connection: Connection, study_id: StudyId, *, now: datetime) -> None:
    """Call a reported study delivered."""
    changed = connection.execute(
        update(studies)
        .where(studies.c.id == study_id, studies.c.state == StudyState.REPORTED)
        .values(state=StudyState.DELIVERED)
    )
    if changed.rowcount:
        events.add(connection, StudyState.DELIVERED, at=now, study_id=study_id)


def analyse_again(connection: Connection, study_ids: Sequence[StudyId], *, now: datetime, why: str, user: str = "") -> int:
    """Make studies due for analysis under a new generation; answer how many. Arriving and ready ones are due anyway.

    `user` is who asked for it, where somebody did.

    Those whose files are gone are left as they are: `without_files` names them.
    """
    settled = studies.c.state.not_in([StudyState.ARRIVING, StudyState.READY]) & ~has_gone_files()
    again = 0
    for study_id in study_ids:
        changed = connection.execute(
            update(studies)
            .where(studies.c.id == study_id, settled)
            .values(
                state=StudyState.READY,
                generation=studies.c.generation + 1,
                priority=1,
                attempts=0,
                next_attempt_at=None,
                reason=None,
            )
        )
        if changed.rowcount:
            facts = {"user": user} if user else {}
            events.record(connection, events.Event(kind=events.REPROCESS, at=now, study_id=study_id, detail=why, facts=facts))
            again += 1
    return again


def answered_by_another_model(connection: Connection, model: ModelIdentity, *, limit: int | None = None) -> list[StudyId]:
    """Reported studies whose newest predictions are by another model, version or weights than these, oldest first.

    A version may have the weights of the one before it and read their outputs otherwise.
    """
    by_another = exists().where(
        predictions.c.study_id == studies.c.id,
        predictions.c.generation == studies.c.generation,
        predictions.c.role == ModelRole.ACTIVE,
        or_(
            predictions.c.model != model.name,
            predictions.c.version != model.version,
            predictions.c.weights_sha256 != model.weights_sha256,
        ),
    )
    rows = connection.execute(
        select(studies.c.id)
        .where(studies.c.state.in_([StudyState.REPORTED, StudyState.DELIVERED]), by_another, ~has_gone_files())
        .order_by(studies.c.received_at)
        .limit(limit)
    )
    return [StudyId(row.id) for row in rows]


def has_gone_files() -> ColumnElement[bool]:
    """Whether a file of a study was deleted or is missing: it cannot be analysed again as it came."""
    return exists().where(instances.c.study_id == studies.c.id, instances.c.gone_at.is_not(None))


def without_files(connection: Connection, study_ids: Sequence[StudyId]) -> list[str]:
    """The Study Instance UIDs of those among these studies whose files are gone."""
    gone = select(studies.c.study_uid).where(studies.c.id.in_(study_ids), has_gone_files())
    return list(connection.execute(gone).scalars())


def triage_rank() -> ColumnElement[int]:
    """The triage level as a number to sort by, the most urgent highest."""
    return case({level.value: level.rank for level in Triage}, value=studies.c.triage)


def hold(connection: Connection, study_id: StudyId) -> tuple[StudyState, int]:
    """Lock a study for the rest of the transaction; answer its state and generation."""
    row = connection.execute(
        select(studies.c.state, studies.c.generation).where(studies.c.id == study_id).with_for_update()
    ).one()
    return StudyState(row.state), row.generation


def find(connection: Connection, study_uid: str) -> StudyId | None:
    """The id of a study, if it was received."""
    found = connection.execute(select(studies.c.id).where(studies.c.study_uid == study_uid)).scalar()
    return None if found is None else StudyId(found)


def in_state(connection: Connection, state: StudyState) -> list[StudyId]:
    """Every study in a state, oldest first."""
    rows = connection.execute(select(studies.c.id).where(studies.c.state == state).order_by(studies.c.received_at))
    return [StudyId(row.id) for row in rows]
