"""Record: from what became of the images to what is said of the study."""

from collections import Counter

from worker.findings import triage_of
from worker.values import Conclusion, StudyOutcome, StudyState, Triage

_MOST_REASONS = 3


def conclude(outcome: StudyOutcome) -> Conclusion:
    """State, reason and triage level of a study.

    One answered image makes it analysed. With none, it has failed where an image should have been analysed and could not be,
    and is not analysed where there was no such image.
    """
    if outcome.failure is not None:
        return Conclusion(state=StudyState.FAILED, reason=outcome.failure, triage=Triage.NONE)
    answers = [image.answer for image in outcome.images if image.answer is not None]
    if answers:
        return Conclusion(state=StudyState.ANALYSED, reason=None, triage=triage_of(answers))
    broken = [image.reason for image in outcome.images if image.eligible]
    if broken:
        return Conclusion(state=StudyState.FAILED, reason=_summary(broken), triage=Triage.NONE)
    return Conclusion(
        state=StudyState.NOT_ANALYSED, reason=_summary([image.reason for image in outcome.images]), triage=Triage.NONE
    )


def _summary(reasons: list[str]) -> str:
    counted = Counter(reasons).most_common()
    words = [reason if count == 1 else f"{reason} ({count} images)" for reason, count in counted[:_MOST_REASONS]]
    if len(counted) > _MOST_REASONS:
        words.append(f"and {len(counted) - _MOST_REASONS} other reasons: see 'cxr-worker studies show'")
    return " ".join(words)
