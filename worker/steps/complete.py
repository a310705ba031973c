"""Complete: the rule that calls a study whole."""

from datetime import datetime, timedelta

from worker.db.studies import StudyProgress


def is_complete(study: StudyProgress, *, now: datetime, quiet: timedelta) -> bool:
    """Whether no image came for the quiet time. The end of an association says nothing (PS3.4 B.4.1)."""
    return now - study.last_received_at >= quiet
