from datetime import timedelta
from typing import Any

import pytest

from tests.fakes import NOON
from worker.db.evidence import Evidence
from worker.db.studies import StudyProgress
from worker.settings import StudySettings
from worker.steps.complete import is_complete, quiet_needed
from worker.values import StudyId

QUIET = timedelta(seconds=5)
SETTINGS = StudySettings.model_validate(
    {
        "quiet_seconds": 5,
        "minimum_quiet_seconds": 1,
        "senders": [{"calling_ae_title": "SLOW", "quiet_seconds": 60}, {"calling_ae_title": "FAST", "quiet_seconds": 0.5}],
    }
)


def _study(*senders: str, **said: Any) -> StudyProgress:
    evidence = Evidence(
        **{key: value if key in {"growing", "count", "outdated"} else frozenset(value) for key, value in said.items()}
    )
    return StudyProgress(id=StudyId(1), last_received_at=NOON, senders=frozenset(senders), evidence=evidence)


@pytest.mark.parametrize(
    ("passed", "complete"),
    [(timedelta(0), False), (QUIET - timedelta(microseconds=1), False), (QUIET, True), (timedelta(days=1), True)],
)
def test_a_study_is_complete_when_no_image_came_for_the_quiet_time(passed: timedelta, *, complete: bool) -> None:
    assert is_complete(_study(), SETTINGS, now=NOON + passed) is complete


def test_a_clock_that_is_some_seconds_behind_completes_nothing() -> None:
    assert not is_complete(_study(), SETTINGS, now=NOON - timedelta(seconds=30))


def test_an_image_received_before_the_clock_was_set_right_does_not_wait_for_it_to_catch_up() -> None:
    study = StudyProgress(id=StudyId(1), last_received_at=NOON + timedelta(days=365))
    assert is_complete(study, SETTINGS, now=NOON)


@pytest.mark.parametrize(
    ("senders", "seconds"), [(("OTHER",), 5), (("SLOW",), 60), (("FAST",), 0.5), (("FAST", "OTHER"), 5), (("SLOW", "FAST"), 60)]
)
def test_a_study_waits_as_long_as_the_most_patient_of_its_senders(senders: tuple[str, ...], seconds: float) -> None:
    assert quiet_needed(_study(*senders), SETTINGS).total_seconds() == seconds


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({"named": ["1", "2"], "here": ["1"]}, 5),
        ({"named": ["1", "2"], "here": ["1", "2"]}, 0),
        ({"named": ["1", "2"], "here": ["1", "2", "3"]}, 5),
        ({"named": ["1"], "here": ["1"], "growing": True}, 5),
        ({"count": 2, "here": ["1"]}, 5),
        ({"count": 2, "here": ["1", "2"]}, 1),
        ({"count": 2, "here": ["1", "2", "3"]}, 1),
        ({"count": 0, "here": ["1"]}, 5),
        ({"count": -1, "here": ["1"]}, 5),
        ({"count": 2, "here": ["1", "2"], "outdated": True}, 5),
        ({"count": 1, "named": ["1", "2"], "here": ["1"]}, 5),
        ({"count": 1, "here": ["1"], "growing": True}, 5),
    ],
)
def test_what_others_say_shortens_the_quiet_time_when_everything_they_know_of_is_here(said: Any, seconds: float) -> None:
    assert quiet_needed(_study(**said), SETTINGS).total_seconds() == seconds


def test_what_others_say_never_makes_a_study_wait_longer() -> None:
    assert quiet_needed(_study("FAST", count=1, here=["1"]), SETTINGS).total_seconds() == 0.5
