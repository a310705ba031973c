"""Whoever is refused again and again fills neither the record of events nor the memory."""

from tests.fakes import FakeClock
from worker.refusals import PER_MINUTE, Refusals


def test_so_many_refusals_of_an_address_are_noted_in_a_minute_and_the_rest_is_counted() -> None:
    clock = FakeClock()
    refusals = Refusals(clock)
    assert [refusals.noted("192.0.2.7") for _ in range(PER_MINUTE)] == [""] * PER_MINUTE
    assert [refusals.noted("192.0.2.7") for _ in range(300)] == [None] * 300
    assert refusals.noted("192.0.2.8") == "", "another address has its own"
    clock.go_on(minutes=1)
    assert refusals.noted("192.0.2.7") == " (300 more before were not noted)"
    assert refusals.noted("192.0.2.7") == ""


def test_a_clock_that_is_set_back_silences_nobody() -> None:
    clock = FakeClock()
    refusals = Refusals(clock)
    for _ in range(PER_MINUTE + 1):
        refusals.noted("192.0.2.7")
    clock.go_on(hours=-1)
    assert refusals.noted("192.0.2.7") == " (1 more before were not noted)"
    assert refusals.noted("192.0.2.7") == ""


def test_many_addresses_take_no_more_memory_than_some() -> None:
    refusals = Refusals(FakeClock())
    for number in range(5000):
        assert refusals.noted(f"address {number}") == ""
    assert len(refusals._minutes) <= 1024  # noqa: SLF001  what must not grow
