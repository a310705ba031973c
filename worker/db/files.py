"""Which files the rows speak of, and what becomes of rows whose files are gone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, func, select, update

from dicom_io.values import SOPInstanceUID
from worker.db import events, studies
from worker.db.schema import events as events_table
from worker.db.schema import instances, reports
from worker.db.schema import studies as study_rows
from worker.values import InstanceId, StudyId, StudyState

FILE_LOST = "file_lost"
"""A file that should be there is not; nobody deleted it on purpose."""

_NEEDS_FILES = (StudyState.ARRIVING, StudyState.READY, StudyState.ANALYSED)
_LOST = "The stored file of {count} of its images is missing. Send the study again."


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """A received object as its row describes it."""

    id: InstanceId
    study_id: StudyId
    path: Path
    """Relative to the data folder."""
    sha256: str
    size: int
    gone: bool


def received(connection: Connection, *, sha256_begins: str = "") -> Iterator[KeptFile]:
    """Every received object whose content's name begins so, gone ones too."""
    columns = (instances.c[name] for name in ("id", "study_id", "path", "sha256", "size", "gone_at"))
    for row in connection.execute(select(*columns).where(instances.c.sha256.startswith(sha256_begins))):
        yield KeptFile(
            id=InstanceId(row.id),
            study_id=StudyId(row.study_id),
            path=Path(row.path),
            sha256=row.sha256,
            size=row.size,
            gone=row.gone_at is not None,
        )


def made_and_gone(connection: Connection) -> tuple[set[Path], set[Path]]:
    """Paths of reports that have a row, relative to the data folder: of those that are kept, and of those that are gone."""
    kept, gone = set[Path](), set[Path]()
    for row in connection.execute(select(reports.c.path, reports.c.gone_at)):
        (kept if row.gone_at is None else gone).add(Path(row.path))
    return kept, gone


def made(connection: Connection) -> dict[Path, str | None]:
    """Every report's path, relative to the data folder, with its checksum; those left out whose files were deleted."""
    kept = select(reports.c.path, reports.c.sha256).where(reports.c.gone_at.is_(None))
    return {Path(row.path): row.sha256 for row in connection.execute(kept)}


def other_came_since(connection: Connection, sop_instance_uid: SOPInstanceUID, sha256: str, moment: float) -> bool:
    """Whether other content than this, and this never, was received of an object after a moment (seconds since 1970)."""
    rows = connection.execute(
        select(instances.c.sha256, instances.c.received_at).where(instances.c.sop_instance_uid == sop_instance_uid)
    ).all()
    return all(row.sha256 != sha256 for row in rows) and any(row.received_at.timestamp() > moment for row in rows)


def lost(connection: Connection, *, since: datetime) -> tuple[int, list[str]]:
    """How many files were found missing since a moment and have not come again, and of which studies, the newest first."""
    rows = connection.execute(
        select(study_rows.c.study_uid, func.count().label("files"))
        .join(instances, instances.c.study_id == study_rows.c.id)
        .join(events_table, (events_table.c.study_id == study_rows.c.id) & (events_table.c.at == instances.c.gone_at))
        .where(events_table.c.kind == FILE_LOST, events_table.c.at >= since)
        .group_by(study_rows.c.study_uid)
        .order_by(func.max(instances.c.gone_at).desc())
    ).all()
    return sum(row.files for row in rows), [row.study_uid for row in rows]


def lose(connection: Connection, study_id: StudyId, lost: Sequence[InstanceId], *, now: datetime) -> int:
    """Note that files of a study are missing, where it was not noted that they were deleted; answer how many.

    Where its analysis or its reports still need them the study fails.
    """
    state, _ = studies.hold(connection, study_id)
    missing = instances.c.id.in_(lost) & instances.c.gone_at.is_(None)
    count = connection.execute(update(instances).where(missing).values(gone_at=now)).rowcount
    if count == 0:
        return 0
    words = _LOST.format(count=count)
    events.add(connection, FILE_LOST, at=now, study_id=study_id, detail=words)
    if state in _NEEDS_FILES:
        connection.execute(
            update(study_rows)
            .where(study_rows.c.id == study_id)
            .values(state=StudyState.FAILED, reason=words, attempts=0, next_attempt_at=None)
        )
        events.add(connection, StudyState.FAILED, at=now, study_id=study_id, detail=words)
    return count
