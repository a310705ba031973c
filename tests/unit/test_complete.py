from datetime import timedelta

import pytest

from tests.fakes import NOON
from worker.db.studies import StudyProgress
from worker.steps.complete import is_complete
from worker.values import StudyId

QUIET = timedelta(seconds=5)


@pytest.mark.parametrize(
    ("passed", "complete"),
    [(timedelta(0), False), (QUIET - timedelta(microseconds=1), False), (QUIET, True), (timedelta(days=1), True)],
)
def test_a_study_is_complete_when_no_image_came_for_the_quiet_time(passed: timedelta, *, complete: bool) -> None:
    study = StudyProgress(id=StudyId(1), last_received_at=NOON)
    assert is_complete(study, now=NOON + passed, quiet=QUIET) is complete


def test_a_clock_that_is_some_seconds_behind_completes_nothing() -> None:
    study = StudyProgress(id=StudyId(1), last_received_at=NOON)
    assert not is_complete(study, now=NOON - timedelta(seconds=30), quiet=QUIET)


def test_an_image_received_before_the_clock_was_set_right_does_not_wait_for_it_to_catch_up() -> None:
    study = StudyProgress(id=StudyId(1), last_received_at=NOON + timedelta(days=365))
    assert is_complete(study, now=NOON, quiet=QUIET)
