"""What both databases must do alike."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_io.errors import Retryable as DicomRetryable
from tests.conftest import TestDatabase
from tests.factories import make_dx, make_study, study_uid
from tests.fakes import NOON, Site, make_site, request_for, take_in
from worker import pipeline
from worker.db import events, studies
from worker.db.database import Database, files_of, insert_if_absent, open_database
from worker.db.migrate import require_newest, upgrade
from worker.db.schema import events as events_table
from worker.db.schema import studies as studies_table
from worker.errors import ConfigurationError, DatabaseUnavailable


def _study(**changes: Any) -> dict[str, Any]:
    usual = {
        "study_uid": "1.2.3",
        "patient_id": "",
        "issuer_of_patient_id": "",
        "accession_number": "",
        "state": "arriving",
        "received_at": NOON,
        "last_received_at": NOON,
    }
    return usual | changes


def test_what_is_written_is_there_for_the_next_connection(database: Database) -> None:
    with database.write() as connection:
        events.add(connection, "opened", at=NOON)
    with database.read() as connection:
        assert events.count_since(connection, "opened", since=NOON) == (1, "")


def test_a_write_that_ends_in_an_error_leaves_nothing(database: Database) -> None:
    def write_and_fail() -> None:
        with database.write() as connection:
            events.add(connection, "opened", at=NOON)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with database.read() as connection:
        assert events.count_since(connection, "opened", since=NOON) == (0, "")


def test_a_moment_comes_back_as_the_same_moment_in_utc(database: Database) -> None:
    in_tokyo = datetime(2031, 5, 20, 21, 0, 0, 123456, tzinfo=timezone(timedelta(hours=9)))
    with database.write() as connection:
        events.add(connection, "opened", at=in_tokyo)
    with database.read() as connection:
        found = connection.execute(select(events_table.c.at)).scalar_one()
    assert found == in_tokyo
    assert found.tzinfo is UTC


def test_a_moment_without_a_time_zone_is_refused(database: Database) -> None:
    with pytest.raises(Exception, match="without a time zone"), database.write() as connection:
        events.add(connection, "opened", at=datetime(2031, 5, 20))  # noqa: DTZ001  that is the point


def test_a_state_that_does_not_exist_cannot_be_written(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(insert(studies_table).values(_study(state="lost")))


def test_a_row_of_a_study_that_does_not_exist_cannot_be_written(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(insert(events_table).values(at=NOON, kind="opened", study_id=4711))


def test_nobody_else_can_read_the_embedded_database_or_what_lies_beside_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    older = tmp_path / "worker.db.before-20310520T120000"
    older.touch(0o644)
    for _ in range(2):
        database = open_database(f"sqlite:///{tmp_path}/worker.db")
        upgrade(database)
        with database.write() as connection:
            events.add(connection, "opened", at=NOON)
            assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
                "worker.db": 0o600, "worker.db-wal": 0o600, "worker.db-shm": 0o600, "worker.db.lock": 0o600, older.name: 0o600,
            }  # fmt: skip
            assert set(files_of(database)) == set(tmp_path.iterdir())
        database.close()
        (tmp_path / "worker.db").chmod(0o644)  # as an earlier version left it
    with pytest.raises(DatabaseUnavailable):
        open_database("sqlite:////proc/worker.db").write().__enter__()


def test_a_file_that_is_no_database_is_told_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "worker.db").write_text("A page of a book, and no database. " * 100)
    database = open_database(f"sqlite:///{tmp_path}/worker.db")
    for write in (upgrade, require_newest):
        with pytest.raises(DatabaseUnavailable, match="file is not a database; look at database_url, or put a backup"):
            write(database)
    database.close()


def test_inserting_twice_keeps_the_first_row(database: Database) -> None:
    with database.write() as connection:
        first = insert_if_absent(connection, studies_table, _study(patient_id="A"))
        second = insert_if_absent(connection, studies_table, _study(patient_id="B"))
        kept = connection.execute(select(studies_table.c.patient_id)).scalars().all()
    assert first is not None
    assert second is None
    assert kept == ["A"]


def test_a_database_that_is_away_is_retryable_and_comes_back(test_database: TestDatabase) -> None:
    database = test_database.opened
    with test_database.away():
        for verb in (database.read, database.write):
            with pytest.raises(DatabaseUnavailable) as caught, verb() as connection:
                events.count_since(connection, "opened", since=NOON)
            assert isinstance(caught.value, DicomRetryable)
            assert re.search("unable to open|not currently accepting", str(caught.value)), "it says what is the matter"
    with database.write() as connection:
        events.add(connection, "opened", at=NOON)


def test_connections_that_broke_while_idle_are_replaced(test_database: TestDatabase) -> None:
    with test_database.opened.read() as connection:
        events.count_since(connection, "opened", since=NOON)
    test_database.break_connections()
    with test_database.opened.write() as connection:
        events.add(connection, "opened", at=NOON)


def test_errors_of_the_database_do_not_quote_what_was_written(test_database: TestDatabase) -> None:
    with pytest.raises(IntegrityError) as caught, test_database.opened.write() as connection:
        connection.execute(insert(studies_table), [_study(patient_id="SECRET-17"), _study(patient_id="SECRET-17")])
    assert "SECRET-17" not in str(caught.value).replace(str(caught.value.orig), "")


def test_many_receivers_at_once_make_one_study_with_every_image(site: Site) -> None:
    images = make_study(views=("PA",) * 8)
    together = Barrier(len(images))

    def arrive(number: int) -> None:
        together.wait()
        take_in(request_for(images[number]), site.parts)

    with ThreadPoolExecutor(len(images)) as pool:
        list(pool.map(arrive, range(len(images))))
    shown = site.study(study_uid())
    assert {image["sop_instance_uid"] for image in shown["images"]} == {ds.SOPInstanceUID for ds in images}
    assert site.events(study_uid()) == ["opened"]


def test_the_same_image_from_many_senders_at_once_is_one_row_and_one_file(site: Site) -> None:
    ds = make_dx()
    together = Barrier(6)

    def arrive(_: int) -> None:
        together.wait()
        take_in(request_for(ds), site.parts)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(arrive, range(6)))
    assert len(site.study(study_uid())["images"]) == 1
    assert len(site.received_files()) == 1


def test_a_study_is_not_called_complete_when_an_image_came_since_it_was_looked_at(site: Site) -> None:
    frontal, lateral = make_study()
    site.receive(frontal)
    site.clock.go_on(seconds=10)
    with site.database.read() as connection:
        (seen,) = studies.arriving(connection)
    site.receive(lateral)
    with site.database.write() as connection:
        assert not studies.mark_ready(connection, seen, now=site.clock())
    assert site.study(study_uid())["state"] == "arriving"


def test_the_next_quiet_end_is_that_of_the_study_quiet_for_longest(site: Site) -> None:
    site.receive(*make_study("early", views=("PA",)))
    site.clock.go_on(seconds=3)
    site.receive(*make_study("late", views=("PA",)))
    assert pipeline.next_completion(site.parts) == NOON + timedelta(seconds=5)


def test_no_study_arriving_means_no_quiet_end(site: Site) -> None:
    assert pipeline.next_completion(site.parts) is None


def test_triage_written_by_somebody_else_is_not_lowered(site: Site) -> None:
    site.receive(*make_study(views=("PA",)))
    with site.database.write() as connection:
        connection.execute(update(studies_table).values(triage="urgent"))
    site.settle()
    assert site.study(study_uid())["triage"] == "urgent"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "mysql://host/name",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql+nothing://host/name",
        "sqlite:////proc/x/y.db",
    ],
)
def test_a_url_that_names_no_usable_database_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^database_url: "):
        open_database(url)


@pytest.mark.parametrize("url", ["postgresql+psycopg://u:hunter2@h:port/d", "hunter2", "mysql://u:hunter2@h/d"])
def test_a_wrong_url_is_not_quoted_since_it_may_hold_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_database(url)
    assert "hunter2" not in str(caught.value)


def test_sqlite_syncs_every_commit_and_keeps_foreign_keys(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'worker.db'}")
    with database.read() as connection:
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("synchronous", "foreign_keys")}
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    database.close()
    assert pragmas == {"synchronous": 2, "foreign_keys": 1}  # FULL
    assert journal == "wal"


def test_two_sites_on_one_database_see_the_same_studies(test_database: TestDatabase, tmp_path: Path) -> None:
    other = open_database(test_database.url)
    receiver = make_site(other, tmp_path / "var")
    receiver.receive(*make_study(views=("PA",)))
    runner = make_site(test_database.opened, tmp_path / "var")
    runner.settle()
    other.close()
    assert runner.study(study_uid())["state"] == "reported"
