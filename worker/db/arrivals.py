"""Arrival: an object becomes a row, its study is opened or reopened."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, bindparam, select, text, update

from dicom_io.part10 import Identity
from dicom_io.values import SOPInstanceUID, StudyUID
from worker.db import events, reports
from worker.db.database import insert_if_absent
from worker.db.schema import UtcDateTime, instances, studies
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
    identity, file = arrival.identity, arrival.file
    before = _hold_study(connection, identity.study_uid) or _open_study(connection, arrival)
    study_id = StudyId(before["id"])
    known = connection.execute(_KNOWN, {"sop_instance_uid": identity.sop_instance_uid}).mappings().one()
    if known["newest"] == file.sha256:
        return
    row = {
        "study_id": study_id,
        "sop_instance_uid": identity.sop_instance_uid,
        "sop_class_uid": identity.sop_class_uid,
        "series_uid": identity.series_uid,
        "transfer_syntax": arrival.transfer_syntax,
        "modality": identity.modality,
        "patient_id": identity.patient_id,
        "issuer_of_patient_id": identity.issuer_of_patient_id,
        "path": str(file.path),
        "sha256": file.sha256,
        "size": file.size,
        "calling_ae_title": arrival.calling_ae_title,
        "peer_address": arrival.peer_address,
        "received_at": arrival.at,
        "turn": known["next_turn"],
        "conflict": bool(known["is_known"]),
    }
    if connection.execute(_ADD, row).scalar_one_or_none() is None:
        same = (instances.c.sop_instance_uid == identity.sop_instance_uid) & (instances.c.sha256 == file.sha256)
        connection.execute(update(instances).where(same).values(turn=known["next_turn"], gone_at=None))
    elif known["is_known"]:
        events.add(connection, "conflict", at=arrival.at, study_id=study_id, detail="Same SOP Instance UID, other content.")
    _reopen(connection, before, arrival)


# Every object waits for these: as text they cost a fifth of what building and compiling them anew does.
_HOLD = "SELECT id, state, patient_id, accession_number FROM studies WHERE study_uid = :study_uid"
_HOLDS = {"sqlite": text(_HOLD), "postgresql": text(f"{_HOLD} FOR UPDATE")}
"""A transaction of SQLite that writes holds everything."""
_KNOWN = text(
    "SELECT (SELECT sha256 FROM instances WHERE sop_instance_uid = :sop_instance_uid AND gone_at IS NULL"
    " ORDER BY turn DESC LIMIT 1) AS newest,"
    " EXISTS (SELECT 1 FROM instances WHERE sop_instance_uid = :sop_instance_uid) AS is_known,"
    " (SELECT coalesce(max(turn), 0) + 1 FROM instances) AS next_turn"
)
_ADD = text(
    "INSERT INTO instances (study_id, sop_instance_uid, sop_class_uid, series_uid, transfer_syntax, modality, patient_id,"
    " issuer_of_patient_id, path, sha256, size, calling_ae_title, peer_address, received_at, turn, conflict)"
    " VALUES (:study_id, :sop_instance_uid, :sop_class_uid, :series_uid, :transfer_syntax, :modality, :patient_id,"
    " :issuer_of_patient_id, :path, :sha256, :size, :calling_ae_title, :peer_address, :received_at, :turn, :conflict)"
    " ON CONFLICT DO NOTHING RETURNING id"
).bindparams(bindparam("received_at", type_=UtcDateTime))
_REOPEN = text(
    "UPDATE studies SET state = :state, reason = NULL, priority = 0, attempts = 0, next_attempt_at = NULL,"
    " last_received_at = :last_received_at, patient_id = :patient_id, issuer_of_patient_id = :issuer_of_patient_id,"
    " accession_number = :accession_number WHERE id = :study_id"
).bindparams(bindparam("last_received_at", type_=UtcDateTime))


def _hold_study(connection: Connection, study_uid: StudyUID) -> RowMapping | None:
    """The study, which nobody else changes until this transaction ends."""
    return connection.execute(_HOLDS[connection.dialect.name], {"study_uid": study_uid}).mappings().one_or_none()


def _open_study(connection: Connection, arrival: Arrival) -> RowMapping:
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
    held = connection.execute(_HOLDS[connection.dialect.name], {"study_uid": identity.study_uid})
    return held.mappings().one()


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
        _REOPEN,
        {
            "study_id": study_id,
            "state": StudyState.ARRIVING.value,
            "last_received_at": arrival.at,
            "patient_id": identity.patient_id,
            "issuer_of_patient_id": identity.issuer_of_patient_id,
            "accession_number": identity.accession_number or row["accession_number"],
        },
    )
