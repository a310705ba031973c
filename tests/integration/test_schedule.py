"""The running schedule, with real threads and the real clock; what it does is waited for, never slept for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import pytest
from structlog.testing import capture_logs

from tests.conftest import TestDatabase
from tests.factories import make_dx, make_study, study_uid
from tests.fakes import FakeEngine, FakePacs, model_identity, request_for, take_in
from tests.servers import wait_for
from worker import pipeline, schedule
from worker.db import listing
from worker.destination import Destination
from worker.pipeline import Parts
from worker.schedule import NIGHTLY, Schedule
from worker.settings import Settings
from worker.values import ReadyStudy, StudyOutcome

AN_HOUR = 3600.0


@dataclass
class Running:
    """A schedule on its own threads."""

    parts: Parts
    engine: FakeEngine
    schedule: Schedule
    open: bool = True

    def receive(self, name: str = "study") -> None:
        for ds in make_study(name, views=("PA",)):
            take_in(request_for(ds), self.parts)
        self.schedule.wake()

    def state(self, name: str = "study") -> str:
        with self.parts.database.read() as connection:
            shown = listing.show_study(connection, study_uid(name))
        assert shown is not None
        return str(shown["state"])


@contextmanager
def running(
    test_database: TestDatabase,
    data_dir: Path,
    *,
    engine: FakeEngine | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    **settings: Any,
) -> Iterator[Running]:
    """Start one whose interval is an hour, so that what happens was woken."""
    usual = {"data_dir": data_dir, "study": {"quiet_seconds": 0}, "schedule": {"interval_seconds": AN_HOUR}}
    used = engine or FakeEngine()
    parts = Parts(
        settings=Settings.model_validate(usual | settings),
        database=test_database.opened,
        clock=clock,
        engine=lambda: used,
    )
    plan = Schedule(parts)
    worker = Running(parts, used, plan)
    plan.start()
    try:
        yield worker
    finally:
        if worker.open:
            plan.close()


def _destination(pacs: FakePacs, name: str = "pacs") -> Destination:
    return pacs.destination(name, outputs=("sr",))


def test_an_arrival_goes_all_the_way_at_once(test_database: TestDatabase, tmp_path: Path, pacs: FakePacs) -> None:
    with running(test_database, tmp_path, destinations=[_destination(pacs)]) as worker:
        worker.receive()
        wait_for(lambda: worker.state() == "delivered", "the report in the PACS")
    assert len(pacs.received) == 1


def test_a_study_is_complete_when_its_quiet_time_ends_without_anybody_waking_it(
    test_database: TestDatabase, tmp_path: Path
) -> None:
    with running(test_database, tmp_path, study={"quiet_seconds": 0.3}) as worker:
        worker.receive()
        wait_for(lambda: worker.state() == "reported", "the end of the quiet time")


def test_the_interval_finds_what_nobody_woke(test_database: TestDatabase, tmp_path: Path) -> None:
    with running(test_database, tmp_path, schedule={"interval_seconds": 0.05}) as worker:
        take_in(request_for(make_dx()), worker.parts)
        wait_for(lambda: worker.state() == "reported", "the interval")


def test_a_clock_that_is_set_back_holds_up_nothing(test_database: TestDatabase, tmp_path: Path) -> None:
    ahead = [timedelta(hours=5)]
    with running(test_database, tmp_path, clock=lambda: datetime.now(UTC) + ahead[0]) as worker:
        take_in(request_for(make_dx()), worker.parts)
        ahead[0] = timedelta(0)
        worker.schedule.keep_time()
        wait_for(lambda: worker.state() == "reported", "the steps")


def test_a_scheduler_that_fell_asleep_while_the_clock_was_set_back_is_woken_when_that_is_undone(
    test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, sleeps = [timedelta(0)], list[float]()

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + ahead[0]

    class Alarm(Event):
        def wait(self, timeout: float | None = None) -> bool:
            sleeps.append(timeout or 0)
            return super().wait(timeout)

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Clock)
    monkeypatch.setattr("apscheduler.schedulers.background.Event", Alarm)
    every_moment = {"interval_seconds": 0.05}
    with running(test_database, tmp_path, clock=lambda: Clock.now(UTC), schedule=every_moment) as worker:
        wait_for(lambda: len(sleeps) > 3, "the scheduler to run")
        ahead[0] = timedelta(hours=-5)
        wait_for(lambda: sleeps[-1] > 4 * AN_HOUR, "the scheduler to sleep until the clock is there again")
        ahead[0] = timedelta(0)
        take_in(request_for(make_dx()), worker.parts)
        worker.schedule.keep_time()
        wait_for(lambda: worker.state() == "reported", "the steps")


def test_the_first_report_of_a_backlog_is_sent_before_more_than_two_batches_are_analysed(
    test_database: TestDatabase, tmp_path: Path, pacs: FakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "ANALYSED_AT_ONCE", 2)

    class Waiting(FakeEngine):
        def analyse(self, studies: Sequence[ReadyStudy]) -> Iterator[StudyOutcome]:
            if len(self.batches) == 2:
                wait_for(lambda: bool(pacs.received), "the first report in the PACS")
            return super().analyse(studies)

    names = [f"study {number}" for number in range(7)]
    parts = Parts(
        settings=Settings(data_dir=tmp_path), database=test_database.opened, clock=lambda: datetime.now(UTC), engine=FakeEngine
    )
    for name in names:
        for ds in make_study(name, views=("PA",)):
            take_in(request_for(ds), parts)
    engine = Waiting()
    with running(test_database, tmp_path, engine=engine, destinations=[_destination(pacs)]) as worker:
        wait_for(lambda: {worker.state(name) for name in names} == {"delivered"}, "every report")
    assert engine.batches == [[study_uid(name) for name in names[first : first + 2]] for first in range(0, 7, 2)]


class _SlowEngine(FakeEngine):
    """Waits in the middle of an analysis until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = Event(), Event()

    def analyse(self, studies: Sequence[ReadyStudy]) -> Iterator[StudyOutcome]:
        self.begun.set()
        assert self.go_on.wait(30)
        yield from super().analyse(studies)


def test_an_arrival_during_a_step_is_not_forgotten(test_database: TestDatabase, tmp_path: Path) -> None:
    engine = _SlowEngine()
    with running(test_database, tmp_path, engine=engine) as worker:
        worker.receive("first")
        assert engine.begun.wait(30)
        worker.receive("second")
        engine.go_on.set()
        wait_for(lambda: worker.state("second") == "reported", "the second study")


def test_closing_in_the_middle_of_a_step_lets_it_finish(test_database: TestDatabase, tmp_path: Path, pacs: FakePacs) -> None:
    engine = _SlowEngine()
    with running(test_database, tmp_path, engine=engine, destinations=[_destination(pacs)]) as worker:
        worker.receive()
        assert engine.begun.wait(30)
        closing = Thread(target=worker.schedule.close, daemon=True)
        closing.start()
        engine.go_on.set()
        closing.join(20)
        assert not closing.is_alive(), "the step waits for the lock that closing holds"
        assert worker.state() == "reported"
        worker.open = False


def test_a_closed_schedule_is_woken_in_vain(test_database: TestDatabase, tmp_path: Path) -> None:
    with running(test_database, tmp_path) as worker:
        pass
    worker.schedule.wake()


def test_a_destination_that_hangs_holds_up_no_other(
    test_database: TestDatabase, tmp_path: Path, pacs: FakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, go_on = Event(), Event()
    deliver_reports = pipeline.deliver_reports

    def deliver(destination: Destination, parts: Parts) -> int:
        if destination.name == "hanging":
            hangs.set()
            assert go_on.wait(30)
            return 0
        return deliver_reports(destination, parts)

    monkeypatch.setattr(schedule.pipeline, "deliver_reports", deliver)
    destinations = [_destination(pacs, "hanging"), _destination(pacs)]
    with running(test_database, tmp_path, destinations=destinations) as worker:
        assert hangs.wait(30)
        for name in ("one", "two", "three"):
            worker.receive(name)
        try:
            wait_for(lambda: len(pacs.received) == 3, "the other destination")
        finally:
            go_on.set()


def test_a_step_recovers_when_the_database_comes_back_and_says_so_once(test_database: TestDatabase, tmp_path: Path) -> None:
    with capture_logs() as said, running(test_database, tmp_path, schedule={"interval_seconds": 0.02}) as worker:
        worker.receive()
        wait_for(lambda: worker.state() == "reported", "the first report")
        with test_database.away():
            wait_for(lambda: any(line["event"] == "step.failed" for line in said), "the step to notice")
        wait_for(lambda: any(line["event"] == "step.recovered" for line in said), "the step to recover")
        worker.receive("second")
        wait_for(lambda: worker.state("second") == "reported", "the second report")
    assert [line["event"] for line in said].count("step.failed") == 1


def test_a_step_that_fails_is_tried_again(test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance, failures = pipeline.advance, [ZeroDivisionError(), OSError(28, "No space left on device")]

    def sometimes(parts: Parts) -> bool:
        if failures:
            raise failures.pop()
        return advance(parts)

    monkeypatch.setattr(schedule.pipeline, "advance", sometimes)
    with capture_logs() as said, running(test_database, tmp_path, schedule={"interval_seconds": 0.02}) as worker:
        take_in(request_for(make_dx()), worker.parts)
        wait_for(lambda: worker.state() == "reported", "the report")
    assert {line["error"] for line in said if line["event"] == "step.failed"} == {"ZeroDivisionError", "OSError"}


def test_night_work_reprocesses_what_another_model_answered(
    test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(test_database, tmp_path) as worker:
        worker.receive()
        wait_for(lambda: worker.state() == "reported", "the first report")
        worker.engine.model = model_identity("2.0")
        monkeypatch.setattr(schedule, "active_identity", lambda *_: worker.engine.model)
        worker.schedule.wake(NIGHTLY)
        wait_for(lambda: len(_reports(worker)) == 2, "the second report")


def test_night_work_can_be_turned_off(test_database: TestDatabase, tmp_path: Path) -> None:
    settings = {"interval_seconds": AN_HOUR, "reprocess": False}
    with capture_logs() as said, running(test_database, tmp_path, schedule=settings) as worker:
        worker.schedule.wake(NIGHTLY)
        worker.receive()
        wait_for(lambda: worker.state() == "reported", "the report")
    assert "nightly.reprocess" not in [line["event"] for line in said]


def _reports(worker: Running) -> list[Any]:
    with worker.parts.database.read() as connection:
        shown = listing.show_study(connection, study_uid())
    assert shown is not None
    return list(shown["reports"])
