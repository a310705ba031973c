"""Analysis: studies due for it, and studies whose reports are due."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, exists, or_, select, true, update

from dicom_io.pixels import Correction
from dicom_io.values import SOPInstanceUID, StudyUID
from worker.db.schema import instances, predictions, reports, studies
from worker.db.studies import triage_rank
from worker.retry import FIRST_DELAY, LONGEST_DELAY, MAX_ATTEMPTS, delay_after
from worker.values import (
    AnalysedStudy,
    Answer,
    ImageOutcome,
    InstanceId,
    ModelIdentity,
    ModelRole,
    Output,
    ReadyStudy,
    StoredInstance,
    StudyId,
    StudyState,
    ToldStudy,
    Triage,
    UnansweredStudy,
)

_ANSWER_COLUMNS = (
    "model",
    "version",
    "weights_sha256",
    "temperature",
    "thresholds",
    "probabilities",
    "present",
    "label",
    "undetermined",
    "flagged",
    "parameters",
)


def claim_ready(connection: Connection, *, now: datetime, limit: int, data_dir: Path) -> list[ReadyStudy]:
    """Take studies due for their first attempt, oldest first, and count it before it is made: a crash counts too.

    What came in goes before what is analysed again: nobody waits for night work.
    """
    chosen = (
        select(studies)
        .where(_due(now), studies.c.attempts == 0)
        .order_by(studies.c.priority, studies.c.completed_at, studies.c.id)
        .limit(limit)
    )
    return [_claimed(connection, row, now, data_dir) for row in connection.execute(chosen).mappings().all()]


def claim_tried(connection: Connection, *, now: datetime, data_dir: Path) -> ReadyStudy | None:
    """Take the one study due for another attempt, and count it.

    The least tried comes first: where a study ends the process, those behind it have their turn before it has another.
    """
    order = (studies.c.attempts, studies.c.completed_at, studies.c.id)
    chosen = select(studies).where(_due(now), studies.c.attempts > 0).order_by(*order).limit(1)
    row = connection.execute(chosen).mappings().first()
    return None if row is None else _claimed(connection, row, now, data_dir)


def release(connection: Connection) -> None:
    """Make every study due at once: whoever had claimed one is gone."""
    connection.execute(update(studies).where(studies.c.next_attempt_at.is_not(None)).values(next_attempt_at=None))


def _due(now: datetime, state: StudyState = StudyState.READY) -> ColumnElement[bool]:
    # A moment further ahead than any delay was set by a clock that ran ahead.
    moment, never = studies.c.next_attempt_at, now + LONGEST_DELAY + FIRST_DELAY
    return and_(studies.c.state == state, or_(moment.is_(None), moment <= now, moment > never))


def _claimed(connection: Connection, row: RowMapping, now: datetime, data_dir: Path) -> ReadyStudy:
    # The next attempt is set before this one is made: if nobody can write down what becomes of it, it waits all the same.
    lease = now + delay_after(row["attempts"] + 1)
    values = {"attempts": row["attempts"] + 1, "next_attempt_at": lease}
    connection.execute(update(studies).where(studies.c.id == row["id"]).values(**values))
    return ReadyStudy(
        id=StudyId(row["id"]),
        study_uid=StudyUID(row["study_uid"]),
        generation=row["generation"],
        attempts=row["attempts"] + 1,
        instances=_instances_of(connection, StudyId(row["id"]), data_dir),
    )


def postpone(connection: Connection, study: ReadyStudy, *, until: datetime, reason: str) -> None:
    """Try a study again later."""
    connection.execute(update(studies).where(still_due(study)).values(next_attempt_at=until, reason=reason))


def analysed(connection: Connection, *, now: datetime, limit: int, data_dir: Path) -> list[AnalysedStudy]:
    """Studies whose reports are due, the most urgent first, night work after all."""
    order = (studies.c.priority, triage_rank().desc(), studies.c.analysed_at, studies.c.id)
    rows = connection.execute(select(studies).where(_due(now, StudyState.ANALYSED)).order_by(*order).limit(limit)).mappings()
    return [
        AnalysedStudy(
            id=StudyId(row["id"]),
            study_uid=StudyUID(row["study_uid"]),
            generation=row["generation"],
            attempts=row["attempts"],
            analysed_at=row["analysed_at"],
            triage=Triage(row["triage"]),
            images=_answered_images(connection, StudyId(row["id"]), row["generation"], data_dir),
        )
        for row in rows.all()
    ]


def unanswered(
    connection: Connection, outputs: Collection[Output], *, now: datetime, limit: int, data_dir: Path
) -> list[UnansweredStudy]:
    """Studies that were not analysed and have no report yet, of one of these outputs, that says so; oldest first."""
    due = _due(now, StudyState.NOT_ANALYSED) & studies.c.untold & _can_be_told(outputs)
    rows = connection.execute(select(studies).where(due).order_by(studies.c.analysed_at, studies.c.id).limit(limit)).mappings()
    return [
        UnansweredStudy(
            id=StudyId(row["id"]),
            study_uid=StudyUID(row["study_uid"]),
            generation=row["generation"],
            attempts=row["attempts"],
            decided_at=row["analysed_at"],
            images=_refused_images(connection, StudyId(row["id"]), data_dir),
        )
        for row in rows.all()
    ]


def some_untold(connection: Connection) -> bool:
    """Whether it is still to be told, or found out that nobody is to be, of a study that it was not analysed."""
    return bool(connection.execute(select(exists().where(_is_untold()))).scalar_one())


def mark_told(connection: Connection, outputs: Collection[Output]) -> int:
    """Mark what is told of in all these outputs, or cannot be; answer how many. Nobody looks at these any more."""
    marked = _is_untold() & ~_can_be_told(outputs)
    return connection.execute(update(studies).where(marked).values(untold=False)).rowcount


def _is_untold() -> ColumnElement[bool]:
    return (studies.c.state == StudyState.NOT_ANALYSED) & studies.c.untold


def _can_be_told(outputs: Collection[Output]) -> ColumnElement[bool]:
    told = [
        exists().where(
            reports.c.study_id == studies.c.id,
            reports.c.generation == studies.c.generation,
            reports.c.kind == output.kind,
            reports.c.language == output.language,
        )
        for output in outputs
    ]
    with_a_file = exists().where(instances.c.study_id == studies.c.id, instances.c.gone_at.is_(None))
    return ~and_(true(), *told) & (studies.c.attempts < MAX_ATTEMPTS) & with_a_file


def _refused_images(connection: Connection, study_id: StudyId, data_dir: Path) -> tuple[ImageOutcome, ...]:
    """The newest content of each image."""
    set_aside = instances.c.reason_code.in_(["repeated", "replaced"])
    rows = connection.execute(
        select(instances)
        .where(instances.c.study_id == study_id, instances.c.gone_at.is_(None), ~set_aside)
        .order_by(instances.c.sop_instance_uid)
    ).mappings()
    return tuple(
        ImageOutcome(
            instance=_instance(row, data_dir),
            eligible=bool(row["eligible"]),
            reason_code=row["reason_code"],
            reason=row["reason"] or "",
            answer=None,
        )
        for row in rows
    )


def postpone_report(connection: Connection, study: ToldStudy, *, until: datetime | None, reason: str) -> None:
    """Try to make a study's reports again later; not again, where there is no later."""
    state = StudyState.ANALYSED if isinstance(study, AnalysedStudy) else StudyState.NOT_ANALYSED
    values: dict[str, Any] = {"attempts": study.attempts + 1, "next_attempt_at": until}
    if state is StudyState.ANALYSED:
        values["reason"] = reason
    elif until is None:
        values["attempts"] = MAX_ATTEMPTS
    connection.execute(
        update(studies)
        .where(studies.c.id == study.id, studies.c.generation == study.generation, studies.c.state == state)
        .values(**values)
    )


def still_due(study: ReadyStudy) -> ColumnElement[bool]:
    """Whether a study is as it was when it was claimed: no image came since."""
    claimed = (studies.c.id == study.id, studies.c.generation == study.generation, studies.c.state == StudyState.READY)
    return and_(*claimed)


def _instances_of(connection: Connection, study_id: StudyId, data_dir: Path) -> tuple[StoredInstance, ...]:
    there = (instances.c.study_id == study_id) & instances.c.gone_at.is_(None)
    rows = connection.execute(select(instances).where(there).order_by(instances.c.turn)).mappings()
    return tuple(_instance(row, data_dir) for row in rows)


def _instance(row: RowMapping, data_dir: Path) -> StoredInstance:
    return StoredInstance(
        id=InstanceId(row["id"]),
        sop_instance_uid=SOPInstanceUID(row["sop_instance_uid"]),
        path=data_dir / row["path"],
        sha256=row["sha256"],
        patient_id=row["patient_id"],
        issuer_of_patient_id=row["issuer_of_patient_id"],
        received_at=row["received_at"],
    )


def _answered_images(connection: Connection, study_id: StudyId, generation: int, data_dir: Path) -> tuple[ImageOutcome, ...]:
    rows = connection.execute(
        select(instances, *(predictions.c[name] for name in _ANSWER_COLUMNS))
        .join(predictions, predictions.c.instance_id == instances.c.id)
        .where(
            predictions.c.study_id == study_id,
            predictions.c.generation == generation,
            predictions.c.role == ModelRole.ACTIVE,
        )
        .order_by(instances.c.sop_instance_uid)  # whatever order they came in, the result has one name
    ).mappings()
    return tuple(
        ImageOutcome(
            instance=_instance(row, data_dir),
            eligible=True,
            reason_code=row["reason_code"],
            reason=row["reason"] or "",
            answer=Answer(
                model=ModelIdentity(name=row["model"], version=row["version"], weights_sha256=row["weights_sha256"]),
                temperature=row["temperature"],
                thresholds=row["thresholds"],
                probabilities=row["probabilities"],
                present=row["present"],
                label=row["label"],
                undetermined=row["undetermined"],
                flagged=row["flagged"],
                parameters=tuple(row["parameters"]),
            ),
            correction=Correction.read(row["correction"]),
        )
        for row in rows
    )
