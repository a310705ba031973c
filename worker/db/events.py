"""The append-only record of what happened to a study."""

from datetime import datetime

from sqlalchemy import Connection, func, insert, select

from worker.db.schema import events
from worker.values import StudyId

SHADOW_FAILED = "shadow_failed"
"""The shadow model gave no answer for some image of a study; the active model's stands."""

OUTPUT_SKIPPED = "output_skipped"
"""An output of a study was not made, and the others were."""


def add(connection: Connection, kind: str, *, at: datetime, study_id: StudyId | None = None, detail: str = "") -> None:
    """Note that something happened. `kind` is a short word such as ``complete``; `detail` is for a person."""
    connection.execute(insert(events).values(at=at, study_id=study_id, kind=kind, detail=detail))


def count_since(connection: Connection, kind: str, *, since: datetime) -> tuple[int, str]:
    """How often something happened since a moment, and the newest detail."""
    matching = (events.c.kind == kind) & (events.c.at >= since)
    count = connection.execute(select(func.count()).select_from(events).where(matching)).scalar_one()
    newest = connection.execute(select(events.c.detail).where(matching).order_by(events.c.id.desc()).limit(1)).scalar()
    return count, newest or ""
