"""Arrival: an object becomes a row, its study is opened or reopened."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, exists, select, update

from dicom_io.part10 import Identity
from dicom_io.values import SOPInstanceUID, StudyUID
from worker.db import events, reports
from worker.db.schema import instances
from worker.db.statement import Statement, stored
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
    restored: bool = False
    """Whether it was known, and replaced a file that was damaged."""


def is_newest(connection: Connection, *, sop_instance_uid: SOPInstanceUID, sha256: str) -> bool:
    """Whether these very bytes are the last that came under their SOP Instance UID, and their file is not gone."""
    there = (instances.c.sop_instance_uid == sop_instance_uid) & instances.c.gone_at.is_(None)
    last = select(instances.c.sha256).where(there).order_by(instances.c.turn.desc())
    return connection.execute(last.limit(1)).scalar() == sha256


def add_arrival(connection: Connection, arrival: Arrival) -> None:
    """Enter an object: the study if it is new, the instance unless its bytes are known, and the study reopened.

    Bytes that are known and were replaced since take their turn again: what the sender sent last counts. So do those whose
    file was gone. Where it was damaged, which may have decided what became of the study, that is reopened too.
    """
    identity, file = arrival.identity, arrival.file
    before = _hold_study(connection, identity.study_uid) or _open_study(connection, arrival)
    study_id = before.id
    ((newest, is_known, turn),) = _KNOWN(connection, sop_instance_uid=identity.sop_instance_uid)
    if newest == file.sha256:
        if arrival.restored:
            events.add(connection, "restored", at=arrival.at, study_id=study_id, detail="A stored file was damaged.")
            _reopen(connection, before, arrival)
        return
    added = _ADD(
        connection,
        study_id=study_id,
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        series_uid=identity.series_uid,
        transfer_syntax=arrival.transfer_syntax,
        modality=identity.modality,
        patient_id=identity.patient_id,
        issuer_of_patient_id=identity.issuer_of_patient_id,
        path=str(file.path),
        sha256=file.sha256,
        size=file.size,
        calling_ae_title=arrival.calling_ae_title,
        peer_address=arrival.peer_address,
        received_at=stored(arrival.at, connection),
        turn=turn,
        conflict=bool(is_known),
    )
    if not added:
        same = (instances.c.sop_instance_uid == identity.sop_instance_uid) & (instances.c.sha256 == file.sha256)
        connection.execute(update(instances).where(same).values(turn=turn, gone_at=None))
    elif is_known:
        events.add(connection, "conflict", at=arrival.at, study_id=study_id, detail="Same SOP Instance UID, other content.")
    _reopen(connection, before, arrival)


_HOLD = Statement(
    "SELECT id, state, patient_id, issuer_of_patient_id, accession_number FROM studies WHERE study_uid = :study_uid",
    locking=" FOR UPDATE",
)
_OPEN = Statement(
    "INSERT INTO studies (study_uid, patient_id, issuer_of_patient_id, accession_number, state, received_at, last_received_at)"
    " VALUES (:study_uid, :patient_id, :issuer_of_patient_id, :accession_number, :state, :at, :at)"
    " ON CONFLICT DO NOTHING RETURNING id"
)
_KNOWN = Statement(
    "SELECT (SELECT sha256 FROM instances WHERE sop_instance_uid = :sop_instance_uid AND gone_at IS NULL"
    " ORDER BY turn DESC LIMIT 1) AS newest,"
    " EXISTS (SELECT 1 FROM instances WHERE sop_instance_uid = :sop_instance_uid) AS is_known,"
    " (SELECT coalesce(max(turn), 0) + 1 FROM instances) AS next_turn"
)
_ADD = Statement(
    "INSERT INTO instances (study_id, sop_instance_uid, sop_class_uid, series_uid, transfer_syntax, modality, patient_id,"
    " issuer_of_patient_id, path, sha256, size, calling_ae_title, peer_address, received_at, turn, conflict)"
    " VALUES (:study_id, :sop_instance_uid, :sop_class_uid, :series_uid, :transfer_syntax, :modality, :patient_id,"
    " :issuer_of_patient_id, :path, :sha256, :size, :calling_ae_title, :peer_address, :received_at, :turn, :conflict)"
    " ON CONFLICT DO NOTHING RETURNING id"
)
_REOPEN = Statement(
    "UPDATE studies SET state = :state, reason = NULL, priority = 0, attempts = 0, next_attempt_at = NULL,"
    " last_received_at = :last_received_at, patient_id = :patient_id, issuer_of_patient_id = :issuer_of_patient_id,"
    " accession_number = :accession_number WHERE id = :study_id"
)


@dataclass(frozen=True, slots=True)
class _Held:
    """A study, which nobody else changes until this transaction ends."""

    id: StudyId
    state: str
    patient_id: str
    issuer_of_patient_id: str
    """The last that was named of its images of this patient; empty where none was."""
    accession_number: str


def _hold_study(connection: Connection, study_uid: StudyUID) -> _Held | None:
    return next((_Held(*row) for row in _HOLD(connection, study_uid=study_uid)), None)


def _open_study(connection: Connection, arrival: Arrival) -> _Held:
    identity = arrival.identity
    opened = _OPEN(
        connection,
        study_uid=identity.study_uid,
        patient_id=identity.patient_id,
        issuer_of_patient_id=identity.issuer_of_patient_id,
        accession_number=identity.accession_number,
        state=StudyState.ARRIVING.value,
        at=stored(arrival.at, connection),
    )
    for (added,) in opened:
        _note(connection, events.OPENED, arrival, study_id=StudyId(added), detail=f"from {arrival.calling_ae_title}")
    (row,) = _HOLD(connection, study_uid=identity.study_uid)
    return _Held(*row)


def _note(connection: Connection, kind: str, arrival: Arrival, *, study_id: StudyId, detail: str) -> None:
    sender = {"ae_title": arrival.calling_ae_title, "address": arrival.peer_address}
    events.record(connection, events.Event(kind=kind, at=arrival.at, study_id=study_id, detail=detail, facts=sender))


def _reopen(connection: Connection, before: _Held, arrival: Arrival) -> None:
    identity, study_id = arrival.identity, before.id
    if before.state != StudyState.ARRIVING:
        _note(connection, events.REOPENED, arrival, study_id=study_id, detail=f"was {before.state}")
    other = _other_patient(connection, before, identity)
    if other:
        events.add(connection, "patient_changed", at=arrival.at, study_id=study_id, detail=f"{other}.")
        reports.supersede(connection, study_id, why=f"{other} came before this was delivered.")
    issuer_before = before.issuer_of_patient_id if before.patient_id == identity.patient_id else ""
    _REOPEN(
        connection,
        study_id=study_id,
        state=StudyState.ARRIVING.value,
        last_received_at=stored(arrival.at, connection),
        patient_id=identity.patient_id,
        issuer_of_patient_id=identity.issuer_of_patient_id or issuer_before,
        accession_number=identity.accession_number or before.accession_number,
    )


def _other_patient(connection: Connection, before: _Held, identity: Identity) -> str:
    """In words, by what an image is of another patient than its study; empty where it is not, as `of_one_patient` sees it."""
    if before.patient_id != identity.patient_id:
        return "An image with another Patient ID"
    issuer, known = identity.issuer_of_patient_id, before.issuer_of_patient_id
    if issuer == known or not issuer:
        return ""
    # None named yet, or one before an image of another patient made the study forget it.
    return "An image with another issuer of its Patient ID" if known or _names_other(connection, before.id, issuer) else ""


def _names_other(connection: Connection, study_id: StudyId, issuer: str) -> bool:
    other = (instances.c.study_id == study_id) & instances.c.issuer_of_patient_id.not_in(["", issuer])
    return bool(connection.execute(select(exists().where(other))).scalar_one())
