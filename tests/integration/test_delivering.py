"""The rules of delivering: what waits for how long, and what a destination that is away, mute or refusing does to others."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dicom_io import requestor
from tests.conftest import TestDatabase
from tests.factories import make_dx, make_study, study_uid
from tests.fakes import FakeClock, FakeEngine, FakePacs, Site, fake_pacs, free_port, make_site, model_identity
from tests.servers import wait_for
from worker import schedule
from worker.commitment import resume_deliveries
from worker.db import listing, reports, studies
from worker.db.database import Database
from worker.pipeline import Parts
from worker.schedule import Schedule
from worker.settings import Destination, Settings
from worker.values import DeliveryState


def _delivery(site: Site, name: str = "study") -> tuple[str, int, str]:
    (shown,) = site.study(study_uid(name))["deliveries"]
    return shown["state"], shown["attempts"], str(shown["last_error"])


def _resume(site: Site) -> int:
    return sum(resume_deliveries(destination, site.parts) for destination in site.parts.settings.destinations)


def _awaited(site: Site) -> bool:
    with site.database.read() as connection:
        return reports.awaits_answer(connection, "pacs")


@pytest.fixture
def away(database: Database, tmp_path: Path) -> Site:
    """A worker whose one destination is away; a study's report waits for it after one attempt."""
    pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port(), outputs=("sr",))
    site = make_site(database, tmp_path / "var", destinations=(pacs,))
    site.receive(make_dx())
    site.settle()
    assert site.deliver() == 0
    return site


@contextmanager
def _back(site: Site, **options: Any) -> Iterator[FakePacs]:
    """The destination is there again, at its port."""
    with fake_pacs(port=site.parts.settings.destinations[0].port, **options) as pacs:
        yield pacs


def test_a_report_is_due_at_once_when_its_destination_answers_again(away: Site) -> None:
    assert _delivery(away)[:2] == ("pending", 1)
    assert _awaited(away)
    assert _resume(away) == 0
    assert away.deliver() == 0, "before its time, and nobody answers"
    with _back(away) as pacs:
        assert _resume(away) == 1
        assert away.deliver() == 1
        assert len(pacs.received) == 1
    assert not _awaited(away)


def test_after_ten_attempts_it_is_on_hold_and_goes_on_when_the_destination_answers(away: Site) -> None:
    for _ in range(9):
        away.clock.go_on(minutes=10)
        away.deliver()
    state, attempts, error = _delivery(away)
    assert (state, attempts) == ("on_hold", 10)
    assert "does not answer" in error
    assert "delivery_on_hold" in away.events(study_uid())
    away.clock.go_on(days=3)
    with _back(away) as pacs:
        assert away.deliver() == 0, "nothing is sent to a destination that nobody knows to be back"
        assert _resume(away) == 1
        assert away.deliver() == 1
        assert len(pacs.received) == 1
    assert _delivery(away)[0] == "delivered"


def test_of_what_waited_for_a_destination_the_most_urgent_goes_first(away: Site) -> None:
    (urgent,) = make_study("urgent", views=("PA",))
    away.engine.labels[urgent.SOPInstanceUID] = "Pneumonia"
    away.receive(urgent)
    away.settle()
    away.clock.go_on(seconds=30)
    with _back(away) as pacs:
        assert away.deliver() == 2
        assert [ds.StudyInstanceUID for ds in pacs.received] == [study_uid("urgent"), study_uid()]


def test_an_attempt_that_a_clock_which_ran_ahead_put_off_is_not_waited_for(away: Site) -> None:
    away.clock.go_on(days=-1)
    with _back(away):
        assert away.deliver() == 1


def test_what_is_on_hold_can_be_sent_again_by_hand(away: Site) -> None:
    for _ in range(9):
        away.clock.go_on(minutes=10)
        away.deliver()
    with away.database.write() as connection:
        assert reports.retry(connection, None, now=away.clock()) == 1
    assert _delivery(away)[:2] == ("pending", 0)


def test_a_newer_report_takes_back_one_that_is_on_hold(away: Site) -> None:
    for _ in range(9):
        away.clock.go_on(minutes=10)
        away.deliver()
    with away.database.write() as connection:
        (waiting,) = reports.due(
            connection, "pacs", now=away.clock(), data_dir=away.parts.data_dir, state=DeliveryState.ON_HOLD
        )
        studies.analyse_again(connection, [waiting.study_id], now=away.clock(), why="another model")
    away.engine.model = model_identity("2.0")
    away.settle()
    assert [delivery["state"] for delivery in away.study(study_uid())["deliveries"]] == ["superseded", "pending"]


def test_an_object_that_is_refused_for_good_is_tried_once(database: Database, tmp_path: Path, pacs: FakePacs) -> None:
    site = make_site(database, tmp_path / "var", destinations=(pacs.destination(outputs=("sr",)),))
    pacs.status = 0xA900
    site.receive(make_dx())
    site.settle()
    site.deliver()
    state, attempts, error = _delivery(site)
    assert (state, attempts) == ("failed", 1)
    assert "0xA900" in error
    site.clock.go_on(days=1)
    site.deliver()
    assert len(pacs.encoded) == 1
    assert not _awaited(site)


def test_a_destination_that_answers_and_is_busy_is_not_asked_whether_it_answers(
    database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    site = make_site(database, tmp_path / "var", destinations=(pacs.destination(outputs=("sr",)),))
    pacs.status = 0xA700
    site.receive(make_dx())
    site.settle()
    site.deliver()
    assert _delivery(site)[:2] == ("pending", 1)
    assert not _awaited(site)


def test_what_a_destination_was_too_busy_for_ten_times_goes_out_when_it_answers_and_has_room(
    database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    site = make_site(database, tmp_path / "var", destinations=(pacs.destination(outputs=("sr",)),))
    pacs.status = 0xA700
    site.receive(make_dx())
    site.settle()
    for _ in range(12):
        site.deliver()
        site.clock.go_on(minutes=10)
    assert _delivery(site)[:2] == ("on_hold", 10)
    assert len(pacs.encoded) == 10
    assert _resume(site) == 1
    assert site.deliver() == 0
    assert _delivery(site)[:2] == ("pending", 1)
    assert _resume(site) == 0, "it is waited for as ever"
    pacs.status = 0x0000
    site.clock.go_on(seconds=30)
    assert site.deliver() == 1


def test_a_destination_that_does_not_let_us_in_is_tried_again_as_soon_as_it_does(away: Site) -> None:
    away.clock.go_on(minutes=10)
    with _back(away, require_called=True, ae_title="ANOTHER"):
        away.deliver()
        assert "rejected the association" in _delivery(away)[2]
        assert _resume(away) == 0
    with _back(away):
        assert _resume(away) == 1
        assert away.deliver() == 1


def test_the_reports_of_many_studies_go_over_one_association(database: Database, tmp_path: Path, pacs: FakePacs) -> None:
    site = make_site(database, tmp_path / "var", destinations=(pacs.destination(outputs=("sr", "text_sr")),))
    for name in ("one", "two", "three"):
        site.receive(*make_study(name, views=("PA",)))
    site.settle()
    assert site.deliver() == 6
    assert len(pacs.calling_ae_titles) == 1


@contextmanager
def _running(test_database: TestDatabase, data_dir: Path, *destinations: Destination) -> Iterator[Parts]:
    settings = Settings.model_validate(
        {
            "data_dir": data_dir,
            "study": {"quiet_seconds": 0},
            "schedule": {"interval_seconds": 3600},
            "destinations": destinations,
        }
    )
    engine = FakeEngine()
    parts = Parts(settings=settings, database=test_database.opened, clock=lambda: datetime.now(UTC), engine=lambda: engine)
    plan = Schedule(parts)
    Site(parts=parts, clock=FakeClock(), engine=engine).receive(make_dx())
    plan.start()
    try:
        yield parts
    finally:
        plan.close()


def _states(parts: Parts) -> dict[str, str]:
    with parts.database.read() as connection:
        return {row["destination"]: row["state"] for row in listing.list_deliveries(connection)}


def test_the_running_worker_notices_that_a_destination_is_back(
    test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "ECHO_EVERY", schedule.ECHO_EVERY / 100)
    pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port(), outputs=("sr",))
    with _running(test_database, tmp_path, pacs) as parts:
        wait_for(lambda: _attempted(parts), "the first attempt")
        with fake_pacs(port=pacs.port) as back:
            wait_for(lambda: _states(parts) == {"pacs": "delivered"}, "the report, long before its next attempt", seconds=20)
            assert len(back.received) == 1


def _attempted(parts: Parts) -> bool:
    with parts.database.read() as connection:
        return any(row["attempts"] for row in listing.list_deliveries(connection))


def test_a_destination_that_accepts_connections_and_says_nothing_holds_up_no_other(
    test_database: TestDatabase, tmp_path: Path, pacs: FakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requestor, "ANSWER_SECONDS", 20.0)
    with ExitStack() as stack:
        silent = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        mute = Destination(name="mute", ae_title="MUTE", host="127.0.0.1", port=silent.getsockname()[1], outputs=("sr",))
        with _running(test_database, tmp_path, mute, pacs.destination(outputs=("sr",))) as parts:
            connection, _ = silent.accept()
            stack.enter_context(closing(connection))
            wait_for(lambda: _states(parts).get("pacs") == "delivered", "the other destination", seconds=15)
            assert _states(parts)["mute"] == "pending"
            connection.shutdown(socket.SHUT_RDWR)  # so that closing need not wait for the answer
