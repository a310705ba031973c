"""Complete: the rule that calls a study whole."""

from datetime import datetime, timedelta

from worker.db.evidence import Evidence
from worker.db.studies import StudyProgress
from worker.settings import StudySettings

# Clocks of two receivers may differ by seconds; an image from further ahead was received before a clock was set right.
_MOST_SKEW = timedelta(minutes=5)
_NAMED = "every instance that was named is here"
_COUNTED = "as many instances as its PACS has are here"


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
    shortest = {_NAMED: 0.0, _COUNTED: settings.minimum_quiet_seconds}.get(why_whole(study.evidence), quiet)
    return timedelta(seconds=min(quiet, shortest))


def why_whole(said: Evidence) -> str:
    """In words, why no more images are to come; empty where nobody says so, or an image came that they did not know of."""
    if said.growing:
        return ""
    if said.named:
        return _NAMED if said.named == said.here else ""
    return _COUNTED if not said.outdated and 0 < (said.count or 0) <= len(said.here) else ""
