"""Complete: the rule that calls a study whole."""

from datetime import datetime, timedelta

from worker.db.studies import StudyProgress

# Clocks of two receivers may differ by seconds; an image from further ahead was received before a clock was set right.
_MOST_SKEW = timedelta(minutes=5)


def is_complete(study: StudyProgress, *, now: datetime, quiet: timedelta) -> bool:
    """Whether no image came for the quiet time. The end of an association says nothing (PS3.4 B.4.1)."""
    silence = now - study.last_received_at
    return silence >= quiet or silence < -_MOST_SKEW
