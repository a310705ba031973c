"""The rules of delivering: what waits for how long, and what a destination that is away, mute or refusing does to others."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import update

from dicom_io import requestor
from tests.conftest import TestDatabase
from tests.factories import PATIENT, make_dx, make_study, study_uid
from tests.fakes import FakeClock, FakeEngine, FakePacs, Site, fake_pacs, free_port, make_site, model_identity
from tests.integration.test_stow import service
from tests.servers import wait_for
from worker import contact
from worker.contact import Contact
from worker.db import delivering, listing, studies
from worker.db.database import Database
from worker.db.schema import deliveries
from worker.destination import Destination
from worker.errors import DatabaseUnavailable
from worker.pipeline import Parts
from worker.schedule import Schedule
from worker.settings import Settings


def _delivery(site: Site, name: str = "study") -> tuple[str, int, str]:
    (shown,) = site.study(study_uid(name))["deliveries"]
    return shown["state"], shown["attempts"], str(shown["last_error"])


def _resume(site: Site) -> int:
    return sum(Contact(destination, site.parts).ask() for destination in site.parts.settings.destinations)


def _awaited(site: Site) -> bool:
    with site.database.read() as connection:
        return delivering.awaits_answer(connection, "pacs")


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


def test_a_report_that_was_changed_on_disk_is_not_sent_and_is_made_anew_when_somebody_asks_for_it(away: Site) -> None:
    away.receive(*make_study("other", views=("PA",)))
    away.settle()
    (uid,) = (shown["sop_instance_uid"] for shown in away.study(study_uid())["reports"])
    path = away.parts.data_dir / "reports" / f"{uid}.dcm"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"TEST", b"REST"))
    assert path.read_bytes() != content
    away.clock.go_on(minutes=10)
    with _back(away) as pacs:
        _resume(away)
        assert away.deliver() == 1, "the others are sent"
        assert _delivery(away, "other")[0] == "delivered"
        state, _, error = _delivery(away)
        assert (state, error) == (
            "failed",
            "Our own file was changed since it was made: 'cxr-worker reprocess' makes it anew.",
        )
        with away.database.write() as connection:
            found = studies.find(connection, study_uid())
            assert found is not None
            studies.analyse_again(connection, [found], now=away.clock(), why="test")
        away.settle()
        assert away.deliver() == 1
        assert {ds.PatientID for ds in pacs.received} == {PATIENT.patient_id}
    assert away.study(study_uid())["state"] == "delivered"


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
        assert delivering.retry(connection, None, now=away.clock()) == 1
    assert _delivery(away)[:2] == ("pending", 0)


def test_a_newer_report_takes_back_one_that_is_on_hold(away: Site) -> None:
    for _ in range(9):
        away.clock.go_on(minutes=10)
        away.deliver()
    assert _delivery(away)[0] == "on_hold"
    with away.database.write() as connection:
        waiting = studies.find(connection, study_uid())
        assert waiting is not None
        studies.analyse_again(connection, [waiting], now=away.clock(), why="another model")
    away.engine.model = model_identity("2.0")
    away.settle()
    assert [delivery["state"] for delivery in away.study(study_uid())["deliveries"]] == ["superseded", "pending"]


def _analyse_again(site: Site) -> None:
    with site.database.write() as connection:
        found = studies.find(connection, study_uid())
        assert found is not None
        assert studies.analyse_again(connection, [found], now=site.clock(), why="test") == 1
    site.settle()


def _lose_reports(site: Site) -> None:
    for path in (site.parts.data_dir / "reports").iterdir():
        path.unlink()


def test_a_report_whose_file_is_missing_says_what_makes_it_again(database: Database, tmp_path: Path, pacs: FakePacs) -> None:
    with service() as web:
        there = (pacs.destination(outputs=("sr",)), Destination(name="web", url=web.url, outputs=("sr",)))
        site = make_site(database, tmp_path / "var", destinations=there)
        site.receive(make_dx())
        site.settle()
        _lose_reports(site)
        assert site.deliver() == 0
        waiting = site.study(study_uid())["deliveries"]
        assert ["cxr-worker reprocess" in delivery["last_error"] for delivery in waiting] == [True, True]
        _analyse_again(site)
        assert site.deliver() == 2
        assert web.bodies
    shown = site.study(study_uid())
    assert [delivery["state"] for delivery in shown["deliveries"]] == ["superseded", "superseded", "delivered", "delivered"]
    assert shown["state"] == "delivered"
    assert len(pacs.received) == 1


def test_a_report_whose_file_is_missing_where_one_destination_has_it_is_made_again_for_both(
    database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    away = Destination(name="away", ae_title="PACS", host="127.0.0.1", port=free_port(), outputs=("sr",))
    site = make_site(database, tmp_path / "var", destinations=(pacs.destination(outputs=("sr",)), away))
    site.receive(make_dx())
    site.settle()
    assert site.deliver() == 1
    _lose_reports(site)
    _analyse_again(site)
    assert site.deliver() == 1
    first, second = pacs.received
    assert second.PredecessorDocumentsSequence
    with fake_pacs(port=away.port) as back:
        site.clock.go_on(minutes=10)
        assert site.deliver() == 1
    assert [report.SOPInstanceUID for report in back.received] == [second.SOPInstanceUID] != [first.SOPInstanceUID]
    assert site.study(study_uid())["state"] == "delivered"


def test_a_report_that_every_destination_has_is_not_made_again_for_want_of_its_file(
    database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    site = make_site(database, tmp_path / "var", destinations=(pacs.destination(outputs=("sr",)),))
    site.receive(make_dx())
    site.settle()
    assert site.deliver() == 1
    _lose_reports(site)
    _analyse_again(site)
    assert site.deliver() == 0
    assert site.study(study_uid())["state"] == "delivered"


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


def _broken(pacs: FakePacs, how: str) -> None:
    """Let it answer C-ECHO, and keep nothing."""
    pacs.aborts = how == "abort"
    pacs.status = 0x0000 if pacs.aborts else int(how, 16)


def _attempt(site: Site, times: int) -> None:
    for _ in range(times):
        site.deliver()
        site.clock.go_on(minutes=10)


def _states_of(site: Site) -> list[tuple[str, str]]:
    """Study Instance UID and state of each delivery, the newest first."""
    with site.database.read() as connection:
        return [(row["study_uid"], row["state"]) for row in listing.list_deliveries(connection)]


@pytest.fixture
def taking(database: Database, tmp_path: Path, pacs: FakePacs) -> Site:
    """A worker whose destination answers; reports of three studies wait for it."""
    site = make_site(database, tmp_path / "var", destinations=(pacs.destination(outputs=("sr",)),))
    for name in ("one", "two", "three"):
        site.receive(*make_study(name, views=("PA",)))
    site.settle()
    return site


@pytest.mark.parametrize("how", ["0x0110", "0xA700", "abort"])
def test_a_destination_that_answers_and_keeps_nothing_fails_no_report_and_gets_them_all_once_it_keeps_one(
    taking: Site, pacs: FakePacs, how: str
) -> None:
    _broken(pacs, how)
    _attempt(taking, 9)
    taking.deliver()
    assert {state for _, state in _states_of(taking)} == {"on_hold"}
    assert _resume(taking) == 0, "that it answers C-ECHO says nothing: it did all the while"
    tried = len(pacs.encoded)
    _broken(pacs, "0x0000")
    assert taking.deliver() == 0, "not before its time"
    taking.clock.go_on(minutes=10)
    assert taking.deliver() == 1, "one, to see"
    assert len(pacs.encoded) == tried + 1
    assert taking.deliver() == 2, "and the others at once"
    assert {state for _, state in _states_of(taking)} == {"delivered"}
    assert taking.study(study_uid("one"))["state"] == "delivered"


def test_a_destination_that_keeps_nothing_is_sent_one_report_every_ten_minutes(taking: Site, pacs: FakePacs) -> None:
    pacs.status = 0x0110
    _attempt(taking, 10)
    assert len(pacs.encoded) == 30
    with taking.database.read() as connection:
        assert delivering.next_due(connection, "pacs") == taking.clock()
    for number in range(1, 7):
        assert taking.deliver() == taking.deliver() == 0
        assert len(pacs.encoded) == 30 + number
        taking.clock.go_on(minutes=10)
    counted = [
        delivery["attempts"] for name in ("one", "two", "three") for delivery in taking.study(study_uid(name))["deliveries"]
    ]
    assert counted == [12, 12, 12], "each in its turn"
    assert taking.events(study_uid("one")).count("delivery_on_hold") == 1


def test_a_report_that_a_destination_never_keeps_holds_up_no_other(taking: Site, pacs: FakePacs) -> None:
    pacs.status = 0x0110
    _attempt(taking, 10)
    pacs.refused = {study_uid("one"): 0x0110}
    pacs.status = 0x0000
    _attempt(taking, 3)
    assert dict(_states_of(taking)) == {
        study_uid("one"): "on_hold", study_uid("two"): "delivered", study_uid("three"): "delivered",
    }  # fmt: skip
    tried = len(pacs.encoded)
    for name in ("four", "five", "six"):
        taking.receive(*make_study(name, views=("PA",)))
        taking.settle()
        taking.deliver()
    assert len(pacs.encoded) == tried + 3, "what is kept of others does not have it sent again"


def test_what_goes_on_hold_meanwhile_does_not_put_off_the_next_try(taking: Site, pacs: FakePacs) -> None:
    pacs.status = 0x0110
    _attempt(taking, 10)
    taking.receive(*make_study("late", views=("PA",)))
    taking.settle()
    taking.deliver()
    assert taking.deliver() == 0, "one, to see"
    tried = len(pacs.encoded)
    with taking.database.write() as connection:
        held = {"state": "on_hold", "attempts": 10, "next_attempt_at": taking.clock() + timedelta(minutes=18)}
        connection.execute(update(deliveries).where(deliveries.c.state == "pending").values(held))
    taking.clock.go_on(minutes=10)
    pacs.status = 0x0000
    assert taking.deliver() == 1
    assert len(pacs.encoded) == tried + 1
    assert taking.deliver() == 3


def test_a_comment_with_control_characters_harms_neither_the_database_nor_what_waits_behind_it(
    taking: Site, pacs: FakePacs
) -> None:
    pacs.comment = "ORA-00001\0rest of a buffer\x1b[31m"
    pacs.refused = {study_uid("one"): 0x0110}
    assert taking.deliver() == 2
    assert _delivery(taking, "one") == (
        "pending", 1, "C-STORE was answered 0x0110. The peer says: ORA-00001 rest of a buffer [31m",
    )  # fmt: skip


def test_a_destination_without_c_echo_is_sent_what_waited_for_it_when_it_is_back(away: Site) -> None:
    for _ in range(9):
        away.clock.go_on(minutes=10)
        away.deliver()
    assert _delivery(away)[0] == "on_hold"
    with _back(away, verification=False) as pacs:
        assert _resume(away) == 1
        assert away.deliver() == 1
        assert len(pacs.received) == 1


def test_a_destination_that_answers_and_lets_nothing_be_stored_is_tried_in_its_own_time(
    database: Database, tmp_path: Path
) -> None:
    with service() as web:
        web.status_of_posts = 403
        known = Destination(name="pacs", url=web.url, outputs=("sr",))
        site = make_site(database, tmp_path / "var", destinations=(known,))
        site.receive(make_dx())
        site.settle()
        contact = Contact(known, site.parts)
        for _ in range(4 * 60 * 3):
            site.deliver()
            contact.renew()
            site.clock.go_on(seconds=15)
        assert len(web.bodies) < 10 + 2 + 18, "ten attempts, those that the first answer is worth, and one every ten minutes"
        assert site.events(study_uid()).count("delivery_on_hold") <= 2
        web.status_of_posts = None
        site.clock.go_on(minutes=10)
        contact.renew()
        assert site.deliver() == 1


def test_what_a_destination_said_never_to_take_is_given_up_also_where_it_was_on_hold(taking: Site, pacs: FakePacs) -> None:
    pacs.status = 0x0110
    _attempt(taking, 10)
    pacs.status = 0x0122
    taking.deliver()
    assert sorted(state for _, state in _states_of(taking)) == ["failed", "on_hold", "on_hold"]


def test_what_waits_for_what_is_told(taking: Site, pacs: FakePacs) -> None:
    pacs.status = 0x0110
    assert _waits(taking) == {"its next attempt"}
    taking.deliver()
    assert _waits(taking) == {"its next attempt"}
    _attempt(taking, 10)
    assert _waits(taking) == {"the destination to take one of those on hold; tried every 10 minutes"}
    pacs.status = 0xC000
    _attempt(taking, 3)
    assert _waits(taking) == {"somebody: cure the cause, then 'cxr-worker deliveries retry'"}


def test_what_waits_for_a_destination_that_is_away_is_told(away: Site) -> None:
    assert _waits(away) == {"its next attempt, or the destination to answer"}
    _attempt(away, 10)
    assert _waits(away) == {"the destination to answer"}


def _waits(site: Site) -> set[str | None]:
    with site.database.read() as connection:
        return {row["waits_for"] for row in listing.list_deliveries(connection)}


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


class Noting(list[Any]):
    """A list that has something done at its first entry."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def append(self, entry: Any) -> None:
        super().append(entry)
        if len(self) == 1:
            self._then()


@pytest.mark.parametrize("kind", ["dicom", "web"])
def test_a_report_that_is_taken_back_while_another_one_is_sent_does_not_go_out(
    database: Database, tmp_path: Path, kind: str
) -> None:
    def take_back() -> None:
        site.receive(*make_study("two", patient=replace(PATIENT, patient_id="TEST-0002"))[1:])

    with fake_pacs() as pacs, service() as web:
        destination = pacs.destination(outputs=("sr",))
        if kind == "web":
            destination = Destination(name="pacs", url=web.url, outputs=("sr",))
        site = make_site(database, tmp_path / "var", destinations=(destination,))
        for name in ("one", "two"):
            site.receive(*make_study(name, views=("PA",)))
        site.settle()
        pacs.received = Noting(take_back)
        web.bodies = Noting(take_back)
        assert site.deliver() == 1
        assert len(pacs.received) + len(web.bodies) == 1
    assert (_delivery(site, "one")[0], _delivery(site, "two")[0]) == ("delivered", "superseded")


@pytest.mark.parametrize("kind", ["dicom", "web"])
def test_a_database_that_cannot_say_what_was_taken_back_is_no_failure_of_the_destination_s(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def away(*_: object) -> NoReturn:
        raise DatabaseUnavailable("away")

    with fake_pacs() as pacs, service() as web:
        destination = pacs.destination(outputs=("sr",))
        if kind == "web":
            destination = Destination(name="pacs", url=web.url, outputs=("sr",))
        site = make_site(database, tmp_path / "var", destinations=(destination,))
        for name in ("one", "two", "three"):
            site.receive(*make_study(name, views=("PA",)))
        site.settle()
        with monkeypatch.context() as broken:
            told = Noting(lambda: broken.setattr(delivering, "is_wanted", away))
            pacs.received = web.bodies = told
            with pytest.raises(DatabaseUnavailable):
                site.deliver()
        assert len(told) == 1
        assert sorted((row["state"], row["attempts"], row["last_error"]) for row in _listed(site)) == [
            ("delivered", 1, None),
            ("pending", 0, None),
            ("pending", 0, None),
        ]
        assert site.deliver() == 2


def test_what_was_taken_back_for_another_patients_image_is_not_sent_by_hand_either(away: Site) -> None:
    away.receive(*make_study(patient=replace(PATIENT, patient_id="TEST-0002"))[1:])
    away.settle()
    ids = [row["id"] for row in _listed(away)]
    assert [row["state"] for row in _listed(away)] == ["superseded"]
    with away.database.write() as connection:
        assert delivering.retry(connection, ids, now=away.clock()) == 0
        assert delivering.not_retried(connection, [*ids, 4711]) == {
            ids[0]: "it was taken back. An image with another Patient ID came before this was delivered.",
            4711: "there is no such delivery.",
        }
    with _back(away) as pacs:
        assert away.deliver() == 0
        assert pacs.received == []


def _listed(site: Site) -> list[dict[str, Any]]:
    with site.database.read() as connection:
        return listing.list_deliveries(connection)


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
    monkeypatch.setattr(contact, "ECHO_EVERY", contact.ECHO_EVERY / 100)
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
