"""Evidence: what others say of the images a study has. It may come before the first image does."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, delete, exists, func, insert, select, update

from dicom_io.mpps import PerformedStep, StepStatus
from dicom_io.values import SOPInstanceUID, StudyUID
from worker.db.schema import deliveries, evidence, instances, reports, studies
from worker.values import DeliveryState, StudyId, StudyState


class EvidenceKind(StrEnum):
    """Who says it."""

    COUNT = "count"
    """A PACS that was asked. Its source is the PACS's AE title."""
    STEP = "step"
    """A modality, of a performed procedure step. Its source is the step's SOP Instance UID."""
    NOTICE = "notice"
    """An archive, by an Instance Availability Notification. Its source is the notice's SOP Instance UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is said of one study, and what of it is here. Our own reports are left out of each."""

    growing: bool = False
    """Whether a step of it still goes on."""
    named: frozenset[str] = frozenset()
    """SOP Instance UIDs that steps and notices named."""
    count: int | None = None
    """How many instances the PACS has."""
    outdated: bool = False
    """Whether an image came since a PACS said how many it has."""
    here: frozenset[str] = frozenset()
    """SOP Instance UIDs that were received."""


NO_EVIDENCE = Evidence()


def note_step(connection: Connection, source: SOPInstanceUID, step: PerformedStep, *, now: datetime) -> int:
    """Note what a message said of a performed step; answer of how many studies.

    A step of several studies does not say which of them an image belongs to, and so names none.
    """
    of_step = (evidence.c.kind == EvidenceKind.STEP) & (evidence.c.source == source)
    known = set(connection.execute(select(evidence.c.study_uid).where(of_step)).scalars())
    for study_uid in step.study_uids - known:
        connection.execute(insert(evidence).values(kind=EvidenceKind.STEP, source=source, study_uid=study_uid, at=now))
    told = known | step.study_uids
    values: dict[str, object] = {"at": now}
    if step.status is not None:
        values["growing"] = step.status is StepStatus.IN_PROGRESS
    if step.instances is not None:
        values["instances"] = sorted(step.instances) if len(told) == 1 else []
    connection.execute(update(evidence).where(of_step).values(**values))
    return len(told)


def note_notice(
    connection: Connection, source: str, study_uid: StudyUID, named: Collection[SOPInstanceUID], *, now: datetime
) -> None:
    """Note which instances of a study an archive says that it has."""
    _replace(connection, EvidenceKind.NOTICE, source, study_uid, at=now, instances=sorted(named))


def note_count(connection: Connection, source: str, study_uid: StudyUID, count: int | None, *, now: datetime) -> None:
    """Note how many instances a PACS says a study has, and that it was asked where it does not say."""
    _replace(connection, EvidenceKind.COUNT, source, study_uid, at=now, count=count)


def _replace(connection: Connection, kind: EvidenceKind, source: str, study_uid: StudyUID, **values: object) -> None:
    same = (evidence.c.kind == kind) & (evidence.c.source == source) & (evidence.c.study_uid == study_uid)
    connection.execute(delete(evidence).where(same))
    connection.execute(insert(evidence).values(kind=kind, source=source, study_uid=study_uid, **values))


def of_arriving(connection: Connection) -> dict[StudyId, Evidence]:
    """What is said of the studies that may still grow, where anything is."""
    arriving = studies.c.state == StudyState.ARRIVING
    said = connection.execute(
        select(studies.c.id, studies.c.last_received_at, evidence)
        .join(evidence, evidence.c.study_uid == studies.c.study_uid)
        .where(arriving)
    ).mappings()
    found: defaultdict[StudyId, Evidence] = defaultdict(Evidence)
    for row in said:
        study_id = StudyId(row["id"])
        before = found[study_id]
        found[study_id] = replace(
            before,
            growing=before.growing or row["growing"],
            named=before.named | frozenset(row["instances"]),
            count=row["count"] if before.count is None else max(before.count, row["count"] or 0),
            outdated=before.outdated or (row["count"] is not None and row["at"] <= row["last_received_at"]),
        )
    if not found:
        return {}
    ours = set(connection.execute(select(reports.c.sop_instance_uid).where(reports.c.study_id.in_(found))).scalars())
    here: defaultdict[StudyId, set[str]] = defaultdict(set)
    received = select(instances.c.study_id, instances.c.sop_instance_uid).where(
        instances.c.study_id.in_(found), instances.c.gone_at.is_(None)
    )
    for instance in connection.execute(received):
        here[StudyId(instance.study_id)].add(instance.sop_instance_uid)
    return {
        study_id: replace(known, named=known.named - ours, here=frozenset(here[study_id] - ours))
        for study_id, known in found.items()
    }


def to_ask(connection: Connection, calling_ae_title: str, source: str, *, limit: int) -> list[tuple[StudyUID, datetime]]:
    """Arriving studies from a sender of which its PACS was not asked since their last image came, and when that was."""
    from_sender = exists().where(instances.c.study_id == studies.c.id, instances.c.calling_ae_title == calling_ae_title)
    asked = exists().where(
        evidence.c.kind == EvidenceKind.COUNT,
        evidence.c.source == source,
        evidence.c.study_uid == studies.c.study_uid,
        evidence.c.at > studies.c.last_received_at,
    )
    rows = connection.execute(
        select(studies.c.study_uid, studies.c.last_received_at)
        .where(studies.c.state == StudyState.ARRIVING, from_sender, ~asked)
        .order_by(studies.c.last_received_at)
        .limit(limit)
    )
    return [(StudyUID(row.study_uid), row.last_received_at) for row in rows]


def reports_there(connection: Connection, study_uid: StudyUID, destinations: Collection[str]) -> int:
    """How many of our own reports of a study are kept by one of these destinations, which are one PACS."""
    there = (
        select(func.count(reports.c.id.distinct()))
        .join(studies, studies.c.id == reports.c.study_id)
        .join(deliveries, deliveries.c.report_id == reports.c.id)
        .where(
            studies.c.study_uid == study_uid,
            deliveries.c.destination.in_(destinations),
            deliveries.c.state == DeliveryState.DELIVERED,
        )
    )
    return int(connection.execute(there).scalar_one())


def senders_of_arriving(connection: Connection) -> dict[StudyId, frozenset[str]]:
    """From whom the images of each study came that may still grow."""
    rows = connection.execute(
        select(instances.c.study_id, instances.c.calling_ae_title)
        .join(studies, studies.c.id == instances.c.study_id)
        .where(studies.c.state == StudyState.ARRIVING)
        .distinct()
    )
    found: defaultdict[StudyId, set[str]] = defaultdict(set)
    for row in rows:
        found[StudyId(row.study_id)].add(row.calling_ae_title)
    return {study_id: frozenset(titles) for study_id, titles in found.items()}


def forget(connection: Connection, *, before: datetime) -> int:
    """Delete what was said before a moment; answer how much. A study that has not come by then is not awaited."""
    return connection.execute(delete(evidence).where(evidence.c.at < before)).rowcount
