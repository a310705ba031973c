"""Studies and their instances: arrival, completion, analysis."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, exists, func, insert, or_, select, update

from dicom_io.part10 import Identity
from dicom_io.values import SOPInstanceUID, StudyUID
from worker.db import events
from worker.db.database import insert_if_absent
from worker.db.schema import instances, predictions, studies
from worker.values import (
    AnalysedStudy,
    Answer,
    Conclusion,
    ImageOutcome,
    InstanceId,
    ModelIdentity,
    ReadyStudy,
    StoredFile,
    StoredInstance,
    StudyId,
    StudyOutcome,
    StudyState,
    Triage,
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
    "flagged",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An object that is on disk, about to become a row."""

    identity: Identity
    file: StoredFile
    transfer_syntax: str
    calling_ae_title: str
    peer_address: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyProgress:
    """What the completion rule looks at."""

    id: StudyId
    last_received_at: datetime


def is_known(connection: Connection, *, sop_instance_uid: SOPInstanceUID, sha256: str) -> bool:
    """Whether these very bytes were received before."""
    known = exists().where(instances.c.sop_instance_uid == sop_instance_uid, instances.c.sha256 == sha256)
    return bool(connection.execute(select(known)).scalar_one())


def add_arrival(connection: Connection, arrival: Arrival) -> None:
    """Enter an object: the study if it is new, the instance unless its bytes are known, and the study reopened."""
    identity = arrival.identity
    study_id = _study_of(connection, arrival)
    before = connection.execute(select(studies).where(studies.c.id == study_id).with_for_update()).mappings().one()
    conflict = exists().where(instances.c.sop_instance_uid == identity.sop_instance_uid)
    in_conflict = bool(connection.execute(select(conflict)).scalar_one())
    added = insert_if_absent(
        connection,
        instances,
        {
            "study_id": study_id,
            "sop_instance_uid": identity.sop_instance_uid,
            "sop_class_uid": identity.sop_class_uid,
            "series_uid": identity.series_uid,
            "transfer_syntax": arrival.transfer_syntax,
            "modality": identity.modality,
            "path": str(arrival.file.path),
            "sha256": arrival.file.sha256,
            "size": arrival.file.size,
            "calling_ae_title": arrival.calling_ae_title,
            "peer_address": arrival.peer_address,
            "received_at": arrival.at,
            "conflict": in_conflict,
        },
    )
    if added is None:
        return
    if in_conflict:
        events.add(connection, "conflict", at=arrival.at, study_id=study_id, detail="Same SOP Instance UID, other content.")
    _reopen(connection, before, arrival)


def _study_of(connection: Connection, arrival: Arrival) -> StudyId:
    identity = arrival.identity
    added = insert_if_absent(
        connection,
        studies,
        {
            "study_uid": identity.study_uid,
            "patient_id": identity.patient_id,
            "issuer_of_patient_id": identity.issuer_of_patient_id,
            "accession_number": identity.accession_number,
            "state": StudyState.ARRIVING,
            "received_at": arrival.at,
            "last_received_at": arrival.at,
        },
    )
    if added is not None:
        events.add(connection, "opened", at=arrival.at, study_id=StudyId(added), detail=f"from {arrival.calling_ae_title}")
        return StudyId(added)
    return StudyId(connection.execute(select(studies.c.id).where(studies.c.study_uid == identity.study_uid)).scalar_one())


def _reopen(connection: Connection, row: RowMapping, arrival: Arrival) -> None:
    identity, study_id = arrival.identity, StudyId(row["id"])
    if row["state"] != StudyState.ARRIVING:
        events.add(connection, "reopened", at=arrival.at, study_id=study_id, detail=f"was {row['state']}")
    other_patient = (row["patient_id"], row["issuer_of_patient_id"]) != (identity.patient_id, identity.issuer_of_patient_id)
    if other_patient and not row["patient_conflict"]:
        events.add(connection, "patient_conflict", at=arrival.at, study_id=study_id, detail="A second patient in one study.")
    connection.execute(
        update(studies)
        .where(studies.c.id == study_id)
        .values(
            state=StudyState.ARRIVING,
            reason=None,
            attempts=0,
            next_attempt_at=None,
            last_received_at=arrival.at,
            patient_conflict=row["patient_conflict"] or other_patient,
        )
    )


def arriving(connection: Connection) -> list[StudyProgress]:
    """Studies that may still grow, the longest quiet first."""
    rows = connection.execute(
        select(studies.c.id, studies.c.last_received_at)
        .where(studies.c.state == StudyState.ARRIVING)
        .order_by(studies.c.last_received_at)
    )
    return [StudyProgress(id=StudyId(row.id), last_received_at=row.last_received_at) for row in rows]


def mark_ready(connection: Connection, progress: StudyProgress, *, now: datetime) -> bool:
    """Call a study complete, unless another image came meanwhile; answer whether it is."""
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
        events.add(connection, "complete", at=now, study_id=progress.id)
        return True
    return False


def claim_ready(connection: Connection, *, now: datetime, limit: int, data_dir: Path) -> list[ReadyStudy]:
    """Take studies due for their first attempt, oldest first, and count it before it is made: a crash counts too."""
    chosen = (
        select(studies).where(_due(now), studies.c.attempts == 0).order_by(studies.c.completed_at, studies.c.id).limit(limit)
    )
    return [_claimed(connection, row, data_dir) for row in connection.execute(chosen).mappings().all()]


def claim_tried(connection: Connection, *, now: datetime, data_dir: Path) -> ReadyStudy | None:
    """Take the one study due for another attempt, and count it.

    The least tried comes first: where a study ends the process, those behind it have their turn before it has another.
    """
    order = (studies.c.attempts, studies.c.completed_at, studies.c.id)
    chosen = select(studies).where(_due(now), studies.c.attempts > 0).order_by(*order).limit(1)
    row = connection.execute(chosen).mappings().first()
    return None if row is None else _claimed(connection, row, data_dir)


def _due(now: datetime) -> ColumnElement[bool]:
    return and_(studies.c.state == StudyState.READY, or_(studies.c.next_attempt_at.is_(None), studies.c.next_attempt_at <= now))


def _claimed(connection: Connection, row: RowMapping, data_dir: Path) -> ReadyStudy:
    connection.execute(update(studies).where(studies.c.id == row["id"]).values(attempts=row["attempts"] + 1))
    return ReadyStudy(
        id=StudyId(row["id"]),
        study_uid=StudyUID(row["study_uid"]),
        generation=row["generation"],
        attempts=row["attempts"] + 1,
        patient_conflict=row["patient_conflict"],
        instances=_instances_of(connection, StudyId(row["id"]), data_dir),
    )


def postpone(connection: Connection, study: ReadyStudy, *, until: datetime, reason: str) -> None:
    """Try a study again later."""
    connection.execute(
        update(studies).where(_same_generation(study, StudyState.READY)).values(next_attempt_at=until, reason=reason)
    )


def record_outcome(connection: Connection, outcome: StudyOutcome, conclusion: Conclusion, *, now: datetime) -> bool:
    """Write down what became of a study, unless it was reopened meanwhile; answer whether it was written.

    The triage level never falls.
    """
    study = outcome.study
    before = connection.execute(select(studies.c.triage).where(studies.c.id == study.id)).scalar_one()
    changed = connection.execute(
        update(studies)
        .where(_same_generation(study, StudyState.READY))
        .values(
            state=conclusion.state,
            reason=conclusion.reason,
            triage=max(Triage(before), conclusion.triage, key=lambda level: level.rank),
            attempts=0,
            next_attempt_at=None,
            analysed_at=now,
        )
    )
    if changed.rowcount == 0:
        return False
    for image in outcome.images:
        connection.execute(
            update(instances)
            .where(instances.c.id == image.instance.id)
            .values(eligible=image.eligible, reason_code=image.reason_code, reason=image.reason)
        )
        if image.answer is not None:
            _add_prediction(connection, study, image.instance.id, image.answer, now)
    events.add(connection, conclusion.state.value, at=now, study_id=study.id, detail=conclusion.reason or "")
    return True


def _add_prediction(connection: Connection, study: ReadyStudy, instance_id: InstanceId, answer: Answer, now: datetime) -> None:
    connection.execute(
        insert(predictions).values(
            study_id=study.id,
            instance_id=instance_id,
            generation=study.generation,
            model=answer.model.name,
            version=answer.model.version,
            weights_sha256=answer.model.weights_sha256,
            temperature=answer.temperature,
            thresholds=dict(answer.thresholds),
            probabilities=dict(answer.probabilities),
            present=dict(answer.present),
            label=answer.label,
            flagged=answer.flagged,
            predicted_at=now,
        )
    )


def analysed(connection: Connection, *, limit: int, data_dir: Path) -> list[AnalysedStudy]:
    """Studies whose reports are due, the most urgent first."""
    rows = connection.execute(
        select(studies).where(studies.c.state == StudyState.ANALYSED).order_by(studies.c.analysed_at, studies.c.id).limit(limit)
    ).mappings()
    found = [
        AnalysedStudy(
            id=StudyId(row["id"]),
            study_uid=StudyUID(row["study_uid"]),
            generation=row["generation"],
            analysed_at=row["analysed_at"],
            triage=Triage(row["triage"]),
            images=_answered_images(connection, StudyId(row["id"]), row["generation"], data_dir),
        )
        for row in rows.all()
    ]
    return sorted(found, key=lambda study: -study.triage.rank)


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


def analyse_again(connection: Connection, study_ids: Sequence[StudyId], *, now: datetime, why: str) -> int:
    """Make studies due for analysis under a new generation; answer how many. Arriving and ready ones are due anyway."""
    settled = studies.c.state.not_in([StudyState.ARRIVING, StudyState.READY])
    again = 0
    for study_id in study_ids:
        changed = connection.execute(
            update(studies)
            .where(studies.c.id == study_id, settled)
            .values(
                state=StudyState.READY,
                generation=studies.c.generation + 1,
                completed_at=now,
                attempts=0,
                next_attempt_at=None,
                reason=None,
            )
        )
        if changed.rowcount:
            events.add(connection, "reprocess", at=now, study_id=study_id, detail=why)
            again += 1
    return again


def answered_by_another_model(connection: Connection, model: ModelIdentity, *, limit: int) -> list[StudyId]:
    """Reported studies whose newest predictions are by other weights than these, oldest first."""
    by_another = exists().where(
        predictions.c.study_id == studies.c.id,
        predictions.c.generation == studies.c.generation,
        predictions.c.weights_sha256 != model.weights_sha256,
    )
    rows = connection.execute(
        select(studies.c.id)
        .where(studies.c.state.in_([StudyState.REPORTED, StudyState.DELIVERED]), by_another)
        .order_by(studies.c.received_at)
        .limit(limit)
    )
    return [StudyId(row.id) for row in rows]


def next_quiet_end(connection: Connection, *, quiet: timedelta) -> datetime | None:
    """When the next arriving study will have been quiet for long enough, if no image comes."""
    first: datetime | None = connection.execute(
        select(func.min(studies.c.last_received_at)).where(studies.c.state == StudyState.ARRIVING)
    ).scalar_one()
    return None if first is None else first + quiet


def find(connection: Connection, study_uid: str) -> StudyId | None:
    """The id of a study, if it was received."""
    found = connection.execute(select(studies.c.id).where(studies.c.study_uid == study_uid)).scalar()
    return None if found is None else StudyId(found)


def _same_generation(study: ReadyStudy, state: StudyState) -> Any:
    return and_(studies.c.id == study.id, studies.c.generation == study.generation, studies.c.state == state)


def _instances_of(connection: Connection, study_id: StudyId, data_dir: Path) -> tuple[StoredInstance, ...]:
    rows = connection.execute(
        select(instances).where(instances.c.study_id == study_id).order_by(instances.c.received_at, instances.c.id)
    ).mappings()
    return tuple(_instance(row, data_dir) for row in rows)


def _instance(row: RowMapping, data_dir: Path) -> StoredInstance:
    return StoredInstance(
        id=InstanceId(row["id"]),
        sop_instance_uid=SOPInstanceUID(row["sop_instance_uid"]),
        path=data_dir / row["path"],
        sha256=row["sha256"],
        received_at=row["received_at"],
    )


def _answered_images(connection: Connection, study_id: StudyId, generation: int, data_dir: Path) -> tuple[ImageOutcome, ...]:
    rows = connection.execute(
        select(instances, *(predictions.c[name] for name in _ANSWER_COLUMNS))
        .join(predictions, predictions.c.instance_id == instances.c.id)
        .where(predictions.c.study_id == study_id, predictions.c.generation == generation)
        .order_by(instances.c.received_at, instances.c.id)
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
                flagged=row["flagged"],
            ),
        )
        for row in rows
    )


def in_state(connection: Connection, state: StudyState) -> list[StudyId]:
    """Every study in a state, oldest first."""
    rows = connection.execute(select(studies.c.id).where(studies.c.state == state).order_by(studies.c.received_at))
    return [StudyId(row.id) for row in rows]
