"""Complete: the rule that calls a study whole."""

from datetime import datetime, timedelta

from worker.db.studies import StudyProgress
from worker.settings import StudySettings

# Clocks of two receivers may differ by seconds; an image from further ahead was received before a clock was set right.
_MOST_SKEW = timedelta(minutes=5)


def is_complete(study: StudyProgress, settings: StudySettings, *, now: datetime) -> bool:
    """Whether no image came for the quiet time. The end of an association says nothing (PS3.4 B.4.1)."""
    silence = now - study.last_received_at
    return silence >= quiet_needed(study, settings) or silence < -_MOST_SKEW


def quiet_needed(study: StudyProgress, settings: StudySettings) -> timedelta:
    """For how long no image must come.

    That of the most patient of its senders; less where everything is here that others know of, and never more.
    """
    own = {sender.calling_ae_title: sender.quiet_seconds for sender in settings.senders}
    known = [own.get(sender) for sender in study.senders] or [None]
    quiet = max(settings.quiet_seconds if seconds is None else seconds for seconds in known)
    said = study.evidence
    if said.growing:
        return timedelta(seconds=quiet)
    if said.named:
        return timedelta(seconds=0 if said.named <= said.here else quiet)
    if said.count and len(said.here) >= said.count:
        quiet = min(quiet, settings.minimum_quiet_seconds)
    return timedelta(seconds=quiet)
