"""What a receiver that is gone left in its journal: nothing of it is lost, and nothing comes twice."""

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import pytest
import structlog
from pydicom.dataset import Dataset
from sqlalchemy import select, text, update

from tests.conftest import Run, TestDatabase
from tests.factories import make_dx, make_study, radiograph, study_uid
from tests.fakes import Site, make_site, request_for, take_in
from tests.journals import receiver_that_is_killed, told
from worker.db import arrivals
from worker.db.database import Database, open_database
from worker.db.schema import events, instances
from worker.errors import DatabaseUnavailable, FilesInDisorder
from worker.journal import owned
from worker.journaling import journal_of
from worker.keeping import replay as replay_module
from worker.keeping.deep_check import check_files
from worker.keeping.orphans import mend
from worker.keeping.replay import replay
from worker.locks import held_alone
from worker.settings import DicomSettings


@pytest.fixture
def killed(site: Site) -> Callable[..., None]:
    """Has a receiver take objects in, which is killed then."""

    def take(*objects: Dataset) -> None:
        with receiver_that_is_killed(site.parts) as parts:
            for ds in objects:
                take_in(request_for(ds, peer_address="192.0.2.7"), parts)
                site.clock.go_on(seconds=1)

    return take


@pytest.fixture
def committed(tmp_path: Path) -> Iterator["Committed"]:
    """Remembers what is committed; the function that it answers is a power cut, which takes back what was committed since."""
    with ExitStack() as stack:

        def remember(site: Site) -> Callable[[], Site]:
            path = tmp_path / f"{uuid4()}.db"
            with (
                closing(sqlite3.connect(site.database.engine.url.database or "")) as now,
                closing(sqlite3.connect(path)) as then,
            ):
                now.backup(then)

            def cut() -> Site:
                database = open_database(f"sqlite:///{path}")
                stack.callback(database.close)
                return replace(site, parts=replace(site.parts, database=database))

            return cut

        yield remember


Committed = Callable[[Site], Callable[[], Site]]
only_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
"""PostgreSQL's rows are durable by themselves."""


def full(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def two_contents() -> tuple[Dataset, Dataset]:
    """Two objects with one SOP Instance UID."""
    first, second = (make_dx(radiograph(32, 32, seed=seed)) for seed in range(2))
    second.SOPInstanceUID = first.SOPInstanceUID
    return first, second


def images(site: Site) -> list[str]:
    return [image["sop_instance_uid"] for image in site.study(study_uid())["images"]]


def newest(site: Site) -> str:
    with site.database.read() as connection:
        return str(connection.execute(select(instances.c.sha256).order_by(instances.c.turn.desc()).limit(1)).scalar())


def journals(site: Site) -> Path:
    return site.parts.data_dir / owned.FOLDER


def test_what_has_rows_is_given_files_and_nothing_else_changes(site: Site, killed: Callable[..., None]) -> None:
    killed(*make_study())
    assert site.received_files() == []
    before = site.study(study_uid())
    assert replay(site.parts) == 2
    assert len(site.received_files()) == 2
    assert site.study(study_uid()) == before
    assert told(journals(site)) == []
    assert replay(site.parts) == 0, "once is enough"
    site.settle()
    assert site.study(study_uid())["state"] == "reported"


def test_the_files_are_those_that_the_receiver_would_have_made(site: Site, killed: Callable[..., None]) -> None:
    frontal, _ = make_study()
    take_in(request_for(frontal, peer_address="192.0.2.7"), site.parts)
    ((path, direct),) = {path: path.read_bytes() for path in site.received_files()}.items()
    path.unlink()
    killed(frontal)
    replay(site.parts)
    assert path.read_bytes() == direct


@only_sqlite
def test_a_row_that_a_power_cut_took_is_entered_as_it_was(
    site: Site, killed: Callable[..., None], committed: Committed
) -> None:
    cut = committed(site)
    killed(*make_study())
    before = site.study(study_uid())
    after = cut()
    site.clock.go_on(seconds=86_400)
    assert replay(after.parts) == 2
    assert after.study(study_uid()) == before
    with site.database.read() as was, after.database.read() as now:
        assert now.execute(select(instances)).all() == was.execute(select(instances)).all()


def test_what_retention_deleted_does_not_come_back(site: Site, killed: Callable[..., None]) -> None:
    killed(*make_study())
    with site.database.write() as connection:
        connection.execute(update(instances).values(gone_at=site.clock()))
    replay(site.parts)
    assert site.received_files() == []


@pytest.mark.parametrize("lost", ["all", "two", "one", "none"])
@only_sqlite
def test_of_two_contents_of_one_object_the_last_counts(
    site: Site, killed: Callable[..., None], committed: Committed, lost: str
) -> None:
    first, second = two_contents()
    cuts = {"all": committed(site)}
    killed(first)
    cuts["two"], one = committed(site), newest(site)
    killed(second)
    cuts["one"], two = committed(site), newest(site)
    killed(first)
    cuts["none"] = committed(site)
    assert newest(site) == one != two
    after = cuts[lost]()
    before = list(_events(after))
    replay(after.parts)
    assert newest(after) == one
    if lost == "none":
        assert list(_events(after)) == before, "nothing happened to the study"


def _events(site: Site) -> Iterator[str]:
    with site.database.read() as connection:
        yield from connection.execute(select(events.c.kind)).scalars()


def test_content_that_came_later_by_another_way_still_counts(site: Site, killed: Callable[..., None]) -> None:
    first, second = two_contents()
    killed(first)
    take_in(request_for(second), site.parts)
    two = newest(site)
    replay(site.parts)
    assert newest(site) == two


def test_a_receiver_that_works_keeps_its_journal(site: Site) -> None:
    with receiver_that_is_killed(site.parts) as parts:
        take_in(request_for(make_study()[0]), parts)
        assert replay(site.parts) == 0
        assert len(told(journals(site))) == 1
    assert replay(site.parts) == 1


def test_two_do_not_replay_at_once(site: Site, killed: Callable[..., None]) -> None:
    killed(*make_study())
    with held_alone(journals(site) / "replay.lock"):
        assert replay(site.parts) == 0
    assert replay(site.parts) == 2


@pytest.mark.parametrize("failing", ["disk", "database"])
@only_sqlite
def test_what_cannot_be_replayed_stays_and_another_receiver_begins_its_own(
    site: Site, killed: Callable[..., None], committed: Committed, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    cut = committed(site)
    killed(*make_study())
    after = cut()

    def away(*_: object, **__: object) -> NoReturn:
        raise DatabaseUnavailable

    with monkeypatch.context() as patched:
        if failing == "disk":
            patched.setattr(replay_module, "write_durably", full)
        else:
            patched.setattr(arrivals, "add_arrival", away)
        with journal_of(after.parts) as journal:
            assert journal is not None
            assert len(told(journals(site))) == 2
        assert len(told(journals(site))) == 2
    with journal_of(after.parts):
        assert len(images(after)) == 2
        assert told(journals(site)) == []


@only_sqlite
def test_a_record_that_was_half_written_is_passed_over_and_told_of(
    site: Site, killed: Callable[..., None], committed: Committed
) -> None:
    frontal, lateral = make_study()
    cut = committed(site)
    killed(frontal, lateral)
    after = cut()
    (path,) = (path for path in journals(site).rglob("*.segment") if frontal.PixelData[:64] in path.read_bytes())
    content = path.read_bytes()
    at = content.index(frontal.PixelData[:64])
    path.write_bytes(content[:at] + b"\xff" * 32 + content[at + 32 :])
    with structlog.testing.capture_logs() as logs:
        assert replay(after.parts) == 1
    assert images(after) == [lateral.SOPInstanceUID]
    (broken,) = (line for line in logs if line["event"] == "journal.record_broken")
    assert broken["where"].startswith("received/")


@only_sqlite
def test_journals_of_several_receivers_are_replayed_in_the_order_of_arrival(site: Site, committed: Committed) -> None:
    first, second = two_contents()
    cut = committed(site)
    with receiver_that_is_killed(site.parts) as one, receiver_that_is_killed(site.parts) as two:
        take_in(request_for(first), two)
        site.clock.go_on(seconds=1)
        take_in(request_for(second), one)
    after = cut()
    assert replay(after.parts) == 2
    assert newest(after) == newest(site)


def test_a_study_is_completed_with_the_files_of_a_receiver_that_is_gone(site: Site, killed: Callable[..., None]) -> None:
    killed(*make_study())
    site.settle()
    assert site.study(study_uid())["state"] == "reported"
    assert len(site.received_files()) == 2


def test_a_study_whose_files_the_disk_does_not_take_waits(
    site: Site, killed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(*make_study())
    with monkeypatch.context() as patched:
        patched.setattr("worker.journal.owned.write_durably", full)
        site.settle()
        assert site.study(study_uid())["state"] == "arriving"
    site.settle()
    assert site.study(study_uid())["state"] == "reported"


def test_what_is_in_a_journal_is_not_missing(site: Site) -> None:
    with receiver_that_is_killed(site.parts) as parts:
        for ds in make_study():
            take_in(request_for(ds), parts)
        assert "2" in check_files(site.database, site.parts.data_dir, progress=lambda _done, _total: None)
        assert mend(site.parts).total() == 0
        assert len(site.received_files()) == 2, "the runner made them"
    site.settle()
    assert site.study(study_uid())["state"] == "reported"


def test_what_is_in_no_journal_is_missing(site: Site, killed: Callable[..., None]) -> None:
    killed(*make_study())
    for path in journals(site).rglob("*.segment"):
        path.unlink()
    with pytest.raises(FilesInDisorder, match="missing"):
        check_files(site.database, site.parts.data_dir, progress=lambda _done, _total: None)


def test_a_journal_that_others_may_read_is_told_of(site: Site, killed: Callable[..., None]) -> None:
    killed(make_study()[0])
    next(journals(site).rglob("*.segment")).chmod(0o644)
    with pytest.raises(FilesInDisorder, match="open to others"):
        check_files(site.database, site.parts.data_dir, progress=lambda _done, _total: None)


def test_what_a_receiver_that_is_gone_left_is_a_warning_of_doctor(
    site: Site, killed: Callable[..., None], cxr_worker: Run
) -> None:
    killed(*make_study())
    said = cxr_worker("doctor")[1]
    assert "2 objects are in the journal" in said
    assert "start 'receive', 'run' or 'serve'" in said
    replay(site.parts)
    assert "every object has a file of its own" in cxr_worker("doctor")[1]


def test_there_is_no_journal_where_none_is_wanted_and_what_is_left_is_replayed_all_the_same(
    site: Site, killed: Callable[..., None]
) -> None:
    killed(*make_study())
    dicom = DicomSettings(journal_bytes=0)
    with journal_of(replace(site.parts, settings=site.parts.settings.model_copy(update={"dicom": dicom}))) as journal:
        assert journal is None
        assert len(site.received_files()) == 2


def test_a_disk_that_gives_no_journal_leaves_a_receiver_without_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.journal.owned.held_alone", full)
    with structlog.testing.capture_logs() as logs, journal_of(site.parts) as journal:
        assert journal is None
    assert [line["event"] for line in logs] == ["journal.none"]


def test_what_is_long_or_finds_no_room_has_a_file_at_once(site: Site) -> None:
    with receiver_that_is_killed(site.parts) as parts:
        take_in(request_for(make_dx(radiograph(1024, 1024, seed=1))), parts)
        assert len(site.received_files()) == 1
        for number in range(80):
            take_in(request_for(make_dx(radiograph(256, 256, seed=number))), parts)
        in_journal = len(told(journals(site)))
        assert 0 < in_journal < 80
        assert len(site.received_files()) == 1 + 80 - in_journal


@only_sqlite
def test_rows_are_durable_by_themselves_only_where_no_journal_repeats_them(test_database: TestDatabase, tmp_path: Path) -> None:
    site = make_site(test_database.opened, tmp_path / "var")
    with receiver_that_is_killed(site.parts) as parts:
        take_in(request_for(make_dx(radiograph(32, 32, seed=1))), parts)
        assert _synchronous(site.database) == 1
        take_in(request_for(make_dx(radiograph(1024, 1024, seed=1))), parts)
        assert _synchronous(site.database) == 2
        take_in(request_for(make_dx(radiograph(32, 32, seed=2))), parts)
        assert _synchronous(site.database) == 1
    with site.database.write() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2, "everything else is"


def _synchronous(database: Database) -> int:
    kept = database._kept  # noqa: SLF001  the connection that arrivals are written by
    assert kept is not None
    return int(kept.connection.driver_connection.execute("PRAGMA synchronous").fetchone()[0])


def test_a_receiver_that_ends_leaves_files_and_no_journal(site: Site) -> None:
    with journal_of(site.parts) as journal:
        for ds in make_study():
            take_in(request_for(ds), replace(site.parts, journal=journal))
    assert len(site.received_files()) == 2
    assert list(journals(site).rglob("*.segment")) == []


def test_a_file_is_dated_when_its_content_came(site: Site, killed: Callable[..., None]) -> None:
    came = site.clock().timestamp()
    killed(make_study()[0])
    replay(site.parts)
    (path,) = site.received_files()
    assert path.stat().st_mtime == pytest.approx(came, abs=1e-3)
