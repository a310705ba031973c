"""What is deleted by the rules for keeping, what never is, and what is left to say of it."""

import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.conftest import Run, TestDatabase
from tests.factories import make_study, study_uid
from tests.fakes import FakePacs, Site, free_port, make_site, model_identity
from tests.servers import wait_for
from worker import pipeline, telling
from worker.cli.doctor import examine
from worker.configuration import read_settings
from worker.db import delivering, events, listing, retention, studies
from worker.keeping import ballast
from worker.keeping.deep_check import check_files
from worker.keeping.orphans import Fate, mend
from worker.keeping.removal import discard
from worker.keeping.retention import Removal, plan, recipients_of, retain
from worker.schedule import Schedule
from worker.settings import Settings

A_MONTH = {"days": 30}


@pytest.fixture
def kept(test_database: TestDatabase, tmp_path: Path, pacs: FakePacs) -> Site:
    """A worker that keeps files for a month, and delivers to a PACS."""
    return _keeping(make_site(test_database.opened, tmp_path / "var", destinations=(pacs.destination(),)), **A_MONTH)


def _keeping(site: Site, **rules: Any) -> Site:
    settings = site.parts.settings
    changed = settings.model_copy(update={"keeping": settings.keeping.model_validate(rules)})
    site.parts = replace(site.parts, settings=changed)
    return site


def _through(site: Site, name: str = "study", *, deliver: bool = True, view: Any = "PA") -> str:
    """Take a study of one image as far as its delivery; answer its UID."""
    site.receive(*make_study(name, views=(view,)))
    site.settle()
    if deliver:
        site.deliver()
    return study_uid(name)


def _retain(site: Site) -> int:
    """Delete as `db clean` does: whoever asks for it vouches for the clock."""
    return retain(site.database, site.parts.settings, clock=site.clock, user="OPERATOR")


def _retain_unasked(site: Site) -> int:
    """Delete as a running worker does every hour."""
    return retain(site.database, site.parts.settings, clock=site.clock)


def _note_something(site: Site) -> None:
    with site.database.write() as connection:
        events.add(connection, events.STARTED, at=site.clock())


def _told(site: Site) -> retention.Recipients:
    return recipients_of(site.parts.settings)


def _settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of the test's database, as the command line reads them."""
    monkeypatch.setenv("CXR_GATE__PIXELS", "false")
    return read_settings(None)


def _gone(site: Site, uid: str) -> bool:
    return site.study(uid)["files_gone_at"] is not None


def _chosen(site: Site) -> Removal:
    """What is to be deleted of the only study, and will be in a moment."""
    with site.database.read() as connection:
        (removal,) = plan(connection, site.parts.settings, now=site.clock())
    return removal


def _assert_it_stays(site: Site, uid: str, removal: Removal) -> None:
    with site.database.write() as connection:
        assert (
            retention.mark_removed(connection, removal.study, _told(site), why=retention.Reason(words=""), now=site.clock())
            == []
        )
    assert not _gone(site, uid)


def test_files_of_a_delivered_study_are_deleted_after_their_days_and_its_row_stays(kept: Site) -> None:
    uid = _through(kept)
    kept.clock.go_on(days=29)
    assert _retain(kept) == 0
    kept.clock.go_on(days=2)
    assert _retain(kept) == 1
    shown = kept.study(uid)
    assert shown["state"] == "delivered"
    assert shown["files_gone_at"] == kept.clock().isoformat(timespec="milliseconds")
    assert shown["images"][0]["predictions"], "what was found stays"
    assert kept.events(uid)[-1] == "files_removed"
    assert shown["events"][-1]["detail"] == "3 files: received more than 30 days ago"
    assert not list(kept.parts.data_dir.rglob("*.dcm*"))
    assert _retain(kept) == 0
    assert check_files(kept.database, kept.parts.data_dir, progress=lambda *_: None).startswith(
        "0 received files and 0 reports"
    )


@pytest.mark.parametrize("state", ["arriving", "reported", "failed", "undelivered"])
def test_files_of_a_study_that_is_not_finished_and_delivered_are_kept(kept: Site, pacs: FakePacs, state: str) -> None:
    if state == "arriving":
        kept.receive(*make_study())
    else:
        if state == "failed":
            kept.engine.silent_on.add(study_uid())
        pacs.status = 0xA700
        _through(kept, deliver=state == "undelivered")
        for _ in range(12):
            kept.clock.go_on(hours=1)
            kept.settle()
    assert kept.study(study_uid())["state"] == ("reported" if state == "undelivered" else state)
    kept.clock.go_on(days=400)
    assert _retain(kept) == 0
    assert kept.received_files()


def _failed(site: Site, name: str = "study") -> str:
    """Let a study fail; answer its UID."""
    site.engine.silent_on.add(study_uid(name))
    site.receive(*make_study(name, views=("PA",)))
    for _ in range(12):
        site.settle()
        site.clock.go_on(minutes=10)
    assert site.study(study_uid(name))["state"] == "failed"
    return study_uid(name)


def test_files_of_a_failed_study_are_deleted_after_the_days_that_a_site_gives_them(kept: Site) -> None:
    _keeping(kept, failed_days=90)
    uid = _failed(kept)
    kept.clock.go_on(days=89)
    assert _retain(kept) == 0
    kept.clock.go_on(days=1)
    assert _retain(kept) == 1
    assert kept.received_files() == []
    shown = kept.study(uid)
    assert (shown["state"], _gone(kept, uid)) == ("failed", True)
    assert (shown["events"][-1]["kind"], shown["events"][-1]["detail"]) == (
        "files_removed",
        "1 files: failed, and received more than 90 days ago",
    )
    assert _retain(kept) == 0
    assert mend(kept.parts).total() == 0
    kept.engine.silent_on.clear()
    _through(kept)
    assert kept.study(uid)["state"] == "delivered", "sent again, it is received like a new one"


def test_files_of_a_failed_study_are_never_deleted_for_want_of_space(kept: Site) -> None:
    finished, failed = _through(kept, "finished"), _failed(kept, "failed")
    kept.clock.go_on(hours=2)
    _keeping(kept, maximum_bytes=1, minimum_free_bytes=2**60, failed_days=90)
    assert _retain(kept) == 1
    assert [_gone(kept, uid) for uid in (finished, failed)] == [True, False]


def test_what_goes_with_failed_studies_need_not_go_for_want_of_space(kept: Site) -> None:
    failed = _failed(kept, "failed")
    kept.clock.go_on(days=91)
    finished = _through(kept, "finished")
    kept.clock.go_on(hours=2)
    with kept.database.read() as connection:
        taken = retention.kept_bytes(connection)
    _keeping(kept, failed_days=90, maximum_bytes=taken * 2 // 3)
    assert _retain(kept) == 1
    assert [_gone(kept, uid) for uid in (finished, failed)] == [False, True]


def test_a_failed_study_that_is_analysed_again_while_it_is_chosen_keeps_its_files(kept: Site) -> None:
    uid = _failed(_keeping(kept, failed_days=90))
    kept.clock.go_on(days=91)
    removal = _chosen(kept)
    with kept.database.write() as connection:
        found = studies.find(connection, uid)
        assert found is not None
        assert studies.analyse_again(connection, [found], now=kept.clock(), why="test") == 1
    _assert_it_stays(kept, uid, removal)


def test_a_failed_study_whose_earlier_report_is_on_its_way_keeps_its_files(kept: Site, pacs: FakePacs) -> None:
    pacs.status = 0xA700
    uid = _through(_keeping(kept, failed_days=90))
    kept.engine.silent_on.add(uid)
    kept.receive(*make_study(views=("PA", "AP")))
    for _ in range(12):
        kept.settle()
        kept.clock.go_on(minutes=10)
    assert kept.study(uid)["state"] == "failed"
    kept.clock.go_on(days=91)
    assert _retain(kept) == 0
    pacs.status = 0x0000
    kept.deliver()
    assert _retain(kept) == 1


@pytest.mark.parametrize("end", ["no destination", "away", "refused", "not configured any more"])
def test_files_of_a_study_that_goes_nowhere_are_deleted_after_the_days_that_a_site_gives_them(
    kept: Site, pacs: FakePacs, end: str
) -> None:
    nowhere = replace(kept.parts, settings=kept.parts.settings.model_copy(update={"destinations": ()}))
    kept.parts = nowhere if end == "no destination" else kept.parts
    pacs.status = {"away": 0xA700, "refused": 0xA900}.get(end, 0x0000)
    uid = _through(kept, deliver=False)
    if end == "not configured any more":
        kept.parts = nowhere
    for _ in range(12):
        kept.deliver()
        kept.clock.go_on(minutes=10)
    waiting = {each["state"] for each in kept.study(uid)["deliveries"]}
    assert waiting == {"no destination": set(), "away": {"on_hold"}, "refused": {"failed"}}.get(end, {"pending"})
    kept.clock.go_on(days=89)
    assert _retain(_keeping(kept, days=1, maximum_bytes=1, minimum_free_bytes=2**60)) == 0, "no other rule touches them"
    _keeping(kept, undelivered_days=90)
    assert _retain(kept) == 0
    kept.clock.go_on(days=1)
    assert _retain(kept) == 1
    shown = kept.study(uid)
    assert (shown["state"], _gone(kept, uid), len(shown["images"][0]["predictions"])) == ("reported", True, 1)
    assert re.fullmatch(
        r"\d files: delivered nowhere, and received and reported more than 90 days ago", shown["events"][-1]["detail"]
    )
    assert {each["state"] for each in shown["deliveries"]} <= {"superseded"}
    assert all("Its file was deleted" in each["last_error"] for each in shown["deliveries"])
    assert not list(kept.parts.data_dir.rglob("*.dcm*"))
    assert _retain(kept) == 0


def test_files_of_a_study_that_is_on_its_way_are_kept_however_old(kept: Site) -> None:
    uid = _through(_keeping(kept, undelivered_days=1), deliver=False)
    kept.clock.go_on(days=400)
    assert _retain(kept) == 0
    kept.deliver()
    assert kept.study(uid)["state"] == "delivered"


def test_a_result_of_today_is_kept_though_its_study_is_old_and_its_destination_away(kept: Site, pacs: FakePacs) -> None:
    uid = _through(_keeping(kept, undelivered_days=90))
    kept.clock.go_on(days=400)
    pacs.status, kept.engine.model = 0xA700, model_identity("2.0")
    assert pipeline.reprocess_outdated(kept.parts, kept.engine.model) == 1
    kept.settle()
    for _ in range(12):
        kept.deliver()
        kept.clock.go_on(minutes=10)
    assert kept.study(uid)["state"] == "reported"
    assert _retain(kept) == 0
    kept.clock.go_on(days=91)
    assert _retain(kept) == 1


def test_a_study_that_is_reported_anew_while_it_is_chosen_keeps_its_files(kept: Site) -> None:
    kept.configure(destinations=())
    uid = _through(_keeping(kept, undelivered_days=90))
    kept.clock.go_on(days=91)
    removal = _chosen(kept)
    kept.engine.model = model_identity("2.0")
    assert pipeline.reprocess_outdated(kept.parts, kept.engine.model) == 1
    kept.settle()
    assert kept.study(uid)["state"] == "reported"
    _assert_it_stays(kept, uid, removal)


def test_a_study_sent_again_after_a_report_that_nobody_was_sent_was_deleted_is_reported_and_delivered(
    kept: Site, pacs: FakePacs
) -> None:
    pacs.status = 0xA900
    uid = _through(_keeping(kept, undelivered_days=90))
    kept.clock.go_on(days=91)
    assert _retain(kept) == 1
    with kept.database.write() as connection:
        ids = [row["id"] for row in listing.list_deliveries(connection)]
        assert delivering.retry(connection, ids, now=kept.clock()) == 0, "there is nothing to send"
    pacs.status, before = 0x0000, len(pacs.received)
    _through(kept)
    assert (kept.study(uid)["state"], len(pacs.received) - before) == ("delivered", 2)


def test_a_study_sent_again_is_not_reported_twice_to_a_destination_though_another_never_had_it(
    kept: Site, pacs: FakePacs
) -> None:
    refusing = pacs.destination("refusing", outputs=("sr", "capture")).model_copy(update={"port": free_port()})
    both = (*kept.parts.settings.destinations, refusing)
    kept.configure(destinations=both)
    uid = _through(_keeping(kept, undelivered_days=90))
    for _ in range(12):
        kept.clock.go_on(minutes=10)
        kept.deliver()
    kept.clock.go_on(days=91)
    assert _retain(kept) == 1
    before = len(pacs.received)
    _through(kept)
    assert len(pacs.received) == before
    states = {each["destination"]: each["state"] for each in kept.study(uid)["deliveries"]}
    assert states == {both[0].name: "delivered", "refusing": "superseded"}


def test_reports_that_were_taken_back_are_kept_while_the_study_s_images_are_and_no_longer(kept: Site, pacs: FakePacs) -> None:
    pacs.status = 0xA700
    uid = _through(_keeping(kept, failed_days=90))
    made = [*(kept.parts.data_dir / "reports").iterdir()]
    _, of_another = make_study(views=("PA", "AP"))
    of_another.PatientID = "TEST-0002"
    kept.receive(of_another)
    kept.settle()
    shown = kept.study(uid)
    assert (shown["state"], {each["state"] for each in shown["deliveries"]}) == ("failed", {"superseded"})
    kept.clock.go_on(days=89)
    assert _retain(kept) == 0
    assert [*(kept.parts.data_dir / "reports").iterdir()] == made != []
    kept.clock.go_on(days=2)
    assert _retain(kept) == 1
    assert not list(kept.parts.data_dir.rglob("*.dcm*"))
    assert _retain(kept) == 0


def test_reports_whose_images_are_gone_already_go_by_the_same_rules(kept: Site) -> None:
    uid = _through(kept)
    for path in kept.received_files():
        path.unlink()
    assert mend(kept.parts) == {Fate.LOST: 1}
    kept.clock.go_on(days=29)
    assert _retain(kept) == 0
    kept.clock.go_on(days=2)
    assert _retain(kept) == 1
    assert kept.study(uid)["events"][-1]["detail"] == "2 files: received more than 30 days ago"
    assert not list(kept.parts.data_dir.rglob("*.dcm*"))
    assert _retain(kept) == 0


def test_what_was_told_of_fewer_images_is_not_what_those_who_want_to_know_wait_for(kept: Site, pacs: FakePacs) -> None:
    wants = pacs.destination(outputs=("sr", "not_analysed"))
    kept.configure(destinations=(wants,))
    uid = _through(kept, view="LL")
    kept.receive(*make_study(views=("LL", "LL")))
    kept.clock.go_on(minutes=1)
    pipeline.complete_studies(kept.parts)
    pipeline.analyse_studies(kept.parts)
    assert kept.study(uid)["state"] == "not_analysed"
    kept.clock.go_on(days=31)
    assert _retain(kept) == 0
    kept.settle()
    kept.deliver()
    assert _retain(kept) == 1


def test_a_study_whose_refusal_cannot_be_told_is_not_kept_for_ever(
    kept: Site, pacs: FakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    wants = pacs.destination(outputs=("sr", "not_analysed"))
    kept.configure(destinations=(wants,))
    monkeypatch.setattr(telling, "refuse", Mock(side_effect=RuntimeError))
    kept.receive(*make_study(views=("LL",)))
    for _ in range(12):
        kept.settle()
        kept.clock.go_on(minutes=10)
    shown = kept.study(study_uid())
    (why,) = [event["detail"] for event in shown["events"] if event["kind"] == "output_skipped"]
    assert why.startswith("No not_analysed: The report could not be made: RuntimeError at ")
    assert why.endswith("Given up after 10 attempts.")
    kept.clock.go_on(days=31)
    assert _retain(kept) == 1


def test_doctor_and_the_list_tell_of_failed_studies_and_their_files(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(test_database.opened, tmp_path / "var")
    site.clock.now = datetime.now(UTC) - timedelta(days=100)

    def said(name: str = "failed studies") -> str:
        return next(check.detail for check in examine(_settings(monkeypatch)) if check.name == name)

    assert said() == "none keeps files"
    uid = _failed(site)
    assert said("undelivered studies") == "none keeps files"
    _through(site, "reported")
    assert re.fullmatch(r"1 keep 0\.\d MB until they are delivered", said("undelivered studies"))
    assert re.fullmatch(r"1 keep 0\.\d MB until they are reprocessed", said())
    monkeypatch.setenv("CXR_KEEPING__FAILED_DAYS", "90")
    assert re.fullmatch(r"1 keep 0\.\d MB for 90 days", said())
    assert f"{uid}: " in cxr_worker("db", "clean", "--dry-run")[1]
    assert "files are gone" not in cxr_worker("studies", "list")[1]
    assert cxr_worker("db", "clean")[1] == "The files of 1 studies are deleted.\n"
    assert said() == "none keeps files"
    assert "files are gone" in cxr_worker("studies", "list")[1]


def test_a_study_that_was_not_analysed_is_kept_until_those_who_want_to_know_were_told(kept: Site, pacs: FakePacs) -> None:
    wants = pacs.destination(outputs=("sr", "not_analysed"))
    kept.configure(destinations=(wants,))
    _through(kept, view="LL", deliver=False)
    kept.clock.go_on(days=31)
    assert _retain(kept) == 0
    kept.deliver()
    assert _retain(kept) == 1


def test_without_anybody_to_tell_a_study_that_was_not_analysed_needs_its_files_no_more(kept: Site) -> None:
    _through(kept, view="LL")
    kept.clock.go_on(days=31)
    assert _retain(kept) == 1


def test_while_files_take_too_much_the_oldest_are_deleted_first(kept: Site) -> None:
    names = ("first", "second", "third")
    for name in names:
        _through(kept, name)
        kept.clock.go_on(hours=2)
    with kept.database.read() as connection:
        taken = retention.kept_bytes(connection)
    _keeping(kept, maximum_bytes=taken * 2 // 3 + 10)
    assert _retain(kept) == 1
    assert [_gone(kept, study_uid(name)) for name in names] == [True, False, False]


def test_while_too_little_is_free_the_oldest_are_deleted_first(kept: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("first", "second", "third")
    for name in names:
        _through(kept, name)
        kept.clock.go_on(hours=2)
    monkeypatch.setattr("worker.keeping.retention.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**9}))
    assert _retain(_keeping(kept, minimum_free_bytes=10**9)) == 0
    assert _retain(_keeping(kept, minimum_free_bytes=10**9 + 1)) == 1
    assert [_gone(kept, study_uid(name)) for name in names] == [True, False, False]


def test_a_study_sent_again_after_its_files_were_deleted_is_received_like_a_new_one(kept: Site, pacs: FakePacs) -> None:
    uid = _through(kept)
    kept.clock.go_on(days=31)
    _retain(kept)
    sent_before = len(pacs.received)
    _through(kept)
    shown = kept.study(uid)
    assert (shown["state"], shown["files_gone_at"]) == ("delivered", None)
    assert len(kept.received_files()) == 1
    assert kept.engine.batches == [[uid], [uid]]
    assert len(pacs.received) == sent_before, "the same result is not reported twice"


def test_another_result_after_the_files_were_deleted_is_reported(kept: Site, pacs: FakePacs) -> None:
    uid = _through(kept)
    kept.clock.go_on(days=31)
    _retain(kept)
    kept.engine.model = model_identity("2.0")
    _through(kept)
    assert kept.study(uid)["state"] == "delivered"
    assert {len(kept.study(uid)["reports"]), len(pacs.received)} == {4}


def test_nothing_is_analysed_again_whose_files_are_gone(kept: Site) -> None:
    uid = _through(kept)
    kept.clock.go_on(days=31)
    _retain(kept)
    assert pipeline.reprocess_outdated(kept.parts, model_identity("2.0")) == 0
    with kept.database.write() as connection:
        found = studies.find(connection, uid)
        assert found is not None
        assert studies.analyse_again(connection, [found], now=kept.clock(), why="test") == 0
    assert kept.study(uid)["state"] == "delivered"


def test_an_image_that_comes_while_its_study_is_chosen_keeps_the_files(kept: Site) -> None:
    uid = _through(kept)
    kept.clock.go_on(days=31)
    removal = _chosen(kept)
    kept.receive(*make_study(views=("PA", "LL")))
    _assert_it_stays(kept, uid, removal)


def test_a_study_that_is_sent_and_delivered_anew_while_it_is_chosen_keeps_its_files(kept: Site) -> None:
    uid = _through(kept)
    kept.clock.go_on(days=31)
    removal = _chosen(kept)
    kept.receive(*make_study(views=("PA", "AP")))
    kept.settle()
    kept.deliver()
    assert kept.study(uid)["state"] == "delivered"
    _assert_it_stays(kept, uid, removal)


def test_a_study_that_fails_after_it_was_chosen_as_finished_keeps_its_files(kept: Site) -> None:
    uid = _through(kept)
    kept.clock.go_on(days=31)
    removal = _chosen(kept)
    with kept.database.write() as connection:
        found = studies.find(connection, uid)
        assert found is not None
        studies.analyse_again(connection, [found], now=kept.clock(), why="test")
    kept.engine.silent_on.add(uid)
    for _ in range(12):
        kept.settle()
        kept.clock.go_on(minutes=10)
    assert kept.study(uid)["state"] == "failed"
    _assert_it_stays(kept, uid, removal)


def test_for_want_of_space_nothing_goes_that_came_within_the_hour(kept: Site) -> None:
    _through(_keeping(kept, maximum_bytes=1))
    kept.clock.go_on(minutes=59)
    assert _retain(kept) == 0
    kept.clock.go_on(minutes=1)
    assert _retain(kept) == 1


def test_what_is_received_between_the_mark_and_the_deletion_stays(kept: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.clock.now = datetime.now(UTC) - timedelta(days=40)
    uid = _through(kept)
    kept.clock.now = datetime.now(UTC)

    def received_again(path: Path, *, now: datetime) -> bool:
        kept.receive(*make_study(views=("PA",)))
        return discard(path, now=now)

    monkeypatch.setattr("worker.keeping.retention.discard", received_again)
    assert _retain(kept) == 1
    assert len(kept.received_files()) == 1
    assert not _gone(kept, uid)
    assert mend(kept.parts).total() == 0


def test_a_file_that_outlived_a_crash_after_the_mark_is_deleted_at_the_next_start(
    kept: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _through(kept)
    kept.clock.go_on(days=31)
    monkeypatch.setattr("worker.keeping.retention.discard", lambda *_, **__: False)
    _retain(kept)
    assert len(kept.received_files()) == 1
    assert mend(kept.parts) == {Fate.DISCARDED: 1}
    assert kept.received_files() == []


def test_reports_that_outlived_a_crash_after_the_mark_are_deleted_at_the_next_start(
    kept: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _through(kept)
    kept.clock.go_on(days=31)
    with monkeypatch.context() as patched:
        patched.setattr("worker.keeping.retention.discard", Mock(side_effect=SystemExit))
        with pytest.raises(SystemExit):
            _retain(kept)
    assert mend(kept.parts) == {Fate.DISCARDED: 3}
    assert not list(kept.parts.data_dir.rglob("*.dcm*"))
    assert mend(kept.parts).total() == 0


def test_a_clock_that_runs_ahead_for_an_hour_deletes_nothing(kept: Site) -> None:
    uid = _through(kept)
    kept.clock.go_on(days=2)
    _note_something(kept)
    kept.clock.go_on(days=365)
    _note_something(kept)
    assert _retain_unasked(kept) == 0
    kept.clock.go_on(days=-365, hours=1)
    assert _retain_unasked(kept) == 0
    assert not _gone(kept, uid)


def test_a_clock_that_is_wrong_at_every_start_deletes_nothing_however_often_it_was(kept: Site) -> None:
    uid = _through(kept)
    for _ in range(3):
        kept.clock.go_on(days=2)
        _note_something(kept)
        kept.clock.go_on(days=3650)
        _note_something(kept)
        assert _retain_unasked(kept) == 0
        kept.clock.go_on(days=-3650, minutes=5)
        _note_something(kept)
    assert not _gone(kept, uid)


def test_a_worker_that_was_off_for_a_month_deletes_by_age_after_a_day_and_says_so_once(kept: Site) -> None:
    _through(kept)
    kept.clock.go_on(days=31)
    for hour in range(25):
        assert _retain_unasked(kept) == (hour == 24), f"after {hour} hours"
        kept.clock.go_on(hours=1)
    with kept.database.read() as connection:
        count, words = events.count_since(connection, events.CLOCK_DOUBTED, since=kept.clock() - timedelta(days=40))
    assert count == 1
    assert words.startswith("The files of 1 studies wait for a day: nothing noted before bears out the time")


def test_a_worker_that_notes_something_every_week_deletes_by_age_at_once(kept: Site) -> None:
    _through(kept)
    for _ in range(5):
        kept.clock.go_on(days=7)
        _note_something(kept)
    kept.clock.go_on(days=2)
    assert _retain_unasked(kept) == 1


def test_a_study_that_came_while_the_clock_was_behind_is_as_old_as_what_was_noted_around_it(kept: Site) -> None:
    old = _through(kept, "old")
    kept.clock.go_on(days=20)
    _note_something(kept)
    kept.clock.go_on(days=-3650)
    behind = _through(kept, "behind")
    kept.clock.go_on(days=3650, minutes=5)
    assert _retain_unasked(kept) == 0
    kept.clock.go_on(days=15)
    assert _retain(kept) == 1, "the later one's earlier date holds up no other"
    assert [_gone(kept, uid) for uid in (old, behind)] == [True, False]
    kept.clock.go_on(days=31)
    assert _retain(kept) == 1


def test_a_failed_study_that_came_while_the_clock_was_behind_is_as_old_as_what_was_noted_around_it(kept: Site) -> None:
    _keeping(kept, failed_days=90)
    _note_something(kept)
    kept.clock.go_on(days=-3650)
    _failed(kept)
    kept.clock.go_on(days=3650)
    assert _retain(kept) == 0
    kept.clock.go_on(days=91)
    assert _retain(kept) == 1


def test_for_want_of_space_files_go_though_the_clock_is_doubted(kept: Site) -> None:
    _through(_keeping(kept, days=30, maximum_bytes=1))
    kept.clock.go_on(days=400)
    assert _retain_unasked(kept) == 1
    assert kept.study(study_uid())["events"][-1]["detail"].endswith("received files took more than 1 bytes")


def test_on_a_full_disk_the_marks_have_the_room_of_the_ballast(kept: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _through(kept)
    assert _retain(kept) == 0
    held = kept.parts.data_dir / "ballast"
    assert held.stat().st_blocks * 512 >= ballast.BYTES
    assert held.stat().st_mode & 0o777 == 0o600
    kept.clock.go_on(days=31)
    mark_removed, free_bytes = retention.mark_removed, [ballast.BYTES - 1]
    monkeypatch.setattr("worker.keeping.ballast.shutil.disk_usage", lambda _: Mock(free=free_bytes[0]))

    def mark(*given: Any, **words: Any) -> list[Path]:
        assert not held.exists()
        return mark_removed(*given, **words)

    monkeypatch.setattr(retention, "mark_removed", mark)
    assert _retain(kept) == 1
    assert not held.exists(), "there is still no room for it"
    free_bytes[0] = kept.parts.settings.dicom.minimum_free_bytes + 2 * ballast.BYTES
    _retain(kept)
    assert held.stat().st_size == ballast.BYTES


def test_doctor_warns_while_files_wait_for_the_clock(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path, pacs: FakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> list[tuple[bool, bool, str]]:
        found = [check for check in examine(_settings(monkeypatch)) if check.name == "clock"]
        return [(check.ok, check.advisory, check.detail) for check in found]

    site = _keeping(make_site(test_database.opened, tmp_path / "var", destinations=(pacs.destination(),)), **A_MONTH)
    assert said() == [], "no rule depends on it"
    monkeypatch.setenv("CXR_KEEPING__DAYS", "30")
    assert said() == [(True, True, "no files wait for it")]
    site.clock.now = datetime.now(UTC) - timedelta(days=40)
    _through(site)
    site.clock.now = datetime.now(UTC)
    assert _retain_unasked(site) == 0
    ((ok, _, detail),) = said()
    assert not ok
    assert detail.startswith("The files of 1 studies wait for a day")
    assert cxr_worker("db", "clean")[1] == "The files of 1 studies are deleted.\n"


def test_the_running_schedule_deletes_by_itself(kept: Site) -> None:
    kept.clock.now = datetime.now(UTC) - timedelta(days=40)
    uid = _through(kept)
    kept.clock.now = datetime.now(UTC) - timedelta(days=2)
    _note_something(kept)
    kept.clock.now = datetime.now(UTC) - timedelta(days=40)
    for path in kept.received_files():
        os.utime(path, (kept.clock().timestamp(),) * 2)
    schedule = Schedule(replace(kept.parts, clock=lambda: datetime.now(UTC)))
    schedule.start()
    wait_for(lambda: _gone(kept, uid) and not kept.received_files(), "the files are deleted")
    schedule.close()


def test_the_running_schedule_does_not_wait_for_the_hour_where_too_little_is_free(
    kept: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes, runs = [10**9], Mock(side_effect=retain)
    monkeypatch.setattr("worker.schedule.shutil.disk_usage", lambda _: Mock(free=free_bytes[0]))
    monkeypatch.setattr("worker.schedule._LOOK_EVERY", timedelta(seconds=0.1))
    monkeypatch.setattr("worker.schedule.retain", runs)
    _keeping(kept, minimum_free_bytes=10**9)
    kept.clock.now = datetime.now(UTC) - timedelta(hours=2)
    uid = _through(kept)
    schedule = Schedule(replace(kept.parts, clock=lambda: datetime.now(UTC)))
    schedule.start()
    wait_for(lambda: runs.call_count, "the first look")
    assert not _gone(kept, uid)
    free_bytes[0] -= 1
    wait_for(lambda: _gone(kept, uid), "the files are deleted")
    schedule.close()


def test_db_clean_says_what_it_would_delete_and_deletes_it(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path, pacs: FakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(test_database.opened, tmp_path / "var", destinations=(pacs.destination(),))
    site.clock.now = datetime.now(UTC) - timedelta(days=40)
    uid = _through(site)
    assert cxr_worker("db", "clean")[0] == 2
    monkeypatch.setenv("CXR_KEEPING__DAYS", "30")
    assert f"{uid}: " in cxr_worker("db", "clean", "--dry-run")[1]
    assert not _gone(site, uid)
    assert cxr_worker("db", "clean")[1] == "The files of 1 studies are deleted.\n"
    assert _gone(site, uid)
    assert "files_gone_at     20" in cxr_worker("studies", "show", uid)[1]
    assert cxr_worker("reprocess", uid)[1] == f"{uid}: its files are gone; send it again.\n0 of 1 studies are due again.\n"
    assert cxr_worker("db", "clean", "--dry-run")[1] == ""
