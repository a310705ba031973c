from datetime import timedelta

import pytest

from tests.fakes import NOON
from worker.retry import next_attempt


@pytest.mark.parametrize(
    ("failed", "seconds"), [(1, 30), (2, 60), (3, 120), (4, 240), (5, 480), (6, 600), (7, 600), (8, 600), (9, 600)]
)
def test_the_wait_is_30_seconds_doubling_to_10_minutes(failed: int, seconds: int) -> None:
    assert next_attempt(failed, now=NOON) == NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(("failed", "asked", "seconds"), [(1, 10, 30), (1, 90, 90), (7, 90, 600), (1, 86400, 600)])
def test_who_asks_for_more_time_is_given_it_up_to_10_minutes(failed: int, asked: int, seconds: int) -> None:
    assert next_attempt(failed, now=NOON, at_least=timedelta(seconds=asked)) == NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize("failed", [10, 11, 1000])
def test_after_ten_attempts_there_is_no_other(failed: int) -> None:
    assert next_attempt(failed, now=NOON) is None
