"""Arrival: an object becomes a row, its study is opened or reopened."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, exists, func, select, update

from dicom_io.part10 import Identity
from dicom_io.values import SOPInstanceUID
from worker.db import events, reports
from worker.db.database import insert_if_absent
from worker.db.schema import instances, studies
from worker.values import StoredFile, StudyId, StudyState


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An object that is on disk, about to become a row."""

    identity: Identity
    file: StoredFile
    transfer_syntax: str
    calling_ae_title: str
    peer_address: str
    at: datetime


def is_newest(connection: Connection, *, sop_instance_uid: SOPInstanceUID, sha256: str) -> bool:
    """Whether these very bytes are the last that came under their SOP Instance UID, and their file is not gone."""
    there = (instances.c.sop_instance_uid == sop_instance_uid) & instances.c.gone_at.is_(None)
    last = select(instances.c.sha256).where(there).order_by(instances.c.turn.desc())
    return connection.execute(last.limit(1)).scalar() == sha256


def add_arrival(connection: Connection, arrival: Arrival) -> None:
    """Enter an object: the study if it is new, the instance unless its bytes are known, and the study reopened.

    Bytes that are known and were replaced since take their turn again: what the sender sent last counts. So do those whose
    file was gone.
    """
    identity = arrival.identity
    study_id = _study_of(connection, arrival)
    before = connection.execute(select(studies).where(studies.c.id == study_id).with_for_update()).mappings().one()
    if is_newest(connection, sop_instance_uid=identity.sop_instance_uid, sha256=arrival.file.sha256):
        return
    conflict = exists().where(instances.c.sop_instance_uid == identity.sop_instance_uid)
    in_conflict = bool(connection.execute(select(conflict)).scalar_one())
    turn = connection.execute(select(func.coalesce(func.max(instances.c.turn), 0) + 1)).scalar_one()
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
            "patient_id": identity.patient_id,
            "issuer_of_patient_id": identity.issuer_of_patient_id,
            "path": str(arrival.file.path),
            "sha256": arrival.file.sha256,
            "size": arrival.file.size,
            "calling_ae_title": arrival.calling_ae_title,
            "peer_address": arrival.peer_address,
            "received_at": arrival.at,
            "turn": turn,
            "conflict": in_conflict,
        },
    )
    if added is None:
        same = (instances.c.sop_instance_uid == identity.sop_instance_uid) & (instances.c.sha256 == arrival.file.sha256)
        connection.execute(update(instances).where(same).values(turn=turn, gone_at=None))
    elif in_conflict:
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
        _note(connection, events.OPENED, arrival, study_id=StudyId(added), detail=f"from {arrival.calling_ae_title}")
        return StudyId(added)
    return StudyId(connection.execute(select(studies.c.id).where(studies.c.study_uid == identity.study_uid)).scalar_one())


def _note(connection: Connection, kind: str, arrival: Arrival, *, study_id: StudyId, detail: str) -> None:
    sender = {"ae_title": arrival.calling_ae_title, "address": arrival.peer_address}
    events.record(connection, events.Event(kind=kind, at=arrival.at, study_id=study_id, detail=detail, facts=sender))


def _reopen(connection: Connection, row: RowMapping, arrival: Arrival) -> None:
    identity, study_id = arrival.identity, StudyId(row["id"])
    if row["state"] != StudyState.ARRIVING:
        _note(connection, events.REOPENED, arrival, study_id=study_id, detail=f"was {row['state']}")
    if row["patient_id"] != identity.patient_id:
        events.add(connection, "patient_changed", at=arrival.at, study_id=study_id, detail="An image with another Patient ID.")
        reports.supersede(connection, study_id, why="An image with another Patient ID came before this was sent.")
    connection.execute(
        update(studies)
        .where(studies.c.id == study_id)
        .values(
            state=StudyState.ARRIVING,
            reason=None,
            priority=0,
            attempts=0,
            next_attempt_at=None,
            last_received_at=arrival.at,
            patient_id=identity.patient_id,
            issuer_of_patient_id=identity.issuer_of_patient_id,
            accession_number=identity.accession_number or row["accession_number"],
        )
    )
