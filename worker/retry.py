"""When to try again: 30 seconds, doubling to 10 minutes, 10 attempts."""

from datetime import datetime, timedelta

FIRST_DELAY = timedelta(seconds=30)
LONGEST_DELAY = timedelta(minutes=10)
MAX_ATTEMPTS = 10


def next_attempt(attempts: int, *, now: datetime, at_least: timedelta = timedelta(0)) -> datetime | None:
    """When to try again after a number of failed attempts (1 or more), or None when it is time to give up.

    Parameters
    ----------
    at_least
        For how long a peer asks not to be tried again; more than 10 minutes count as 10.
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    return now + max(delay_after(attempts), min(at_least, LONGEST_DELAY))


def delay_after(attempts: int) -> timedelta:
    """How long to wait after a number of failed attempts (1 or more)."""
    return min(FIRST_DELAY * (1 << min(attempts - 1, 16)), LONGEST_DELAY)
