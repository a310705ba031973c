"""Files and rows that lost each other: found, mended, and told of."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select, update

from tests.conftest import Run, TestDatabase
from tests.factories import make_dx, make_study, study_uid
from tests.fakes import Site, make_site, request_for, take_in
from worker.db import arrivals, events, files
from worker.db.schema import instances, reports, studies
from worker.errors import DatabaseUnavailable, FilesInDisorder
from worker.files import make_folder
from worker.keeping import removal
from worker.keeping.deep_check import check_files
from worker.keeping.orphans import Fate, mend
from worker.keeping.removal import discard


def _lose_rows(monkeypatch: pytest.MonkeyPatch, site: Site, *objects: Dataset) -> None:
    """Take objects in as far as their files: the process ends before their rows are committed."""

    def end(*_: object, **__: object) -> None:
        raise DatabaseUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(arrivals, "add_arrival", end)
        for ds in objects:
            with pytest.raises(DatabaseUnavailable):
                take_in(request_for(ds), site.parts)


def _detail(site: Site, kind: str) -> str:
    with site.database.read() as connection:
        return events.count_since(connection, kind, since=site.clock())[1]


def _checked(site: Site) -> str:
    return check_files(site.database, site.parts.data_dir, progress=lambda _done, _total: None)


def test_a_file_without_a_row_is_entered_again_and_analysed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    frontal, lateral = make_study()
    site.receive(lateral)
    _lose_rows(monkeypatch, site, frontal)
    assert mend(site.parts) == {Fate.ENTERED: 1}
    site.settle()
    shown = site.study(study_uid())
    assert shown["state"] == "reported"
    assert {image["sop_instance_uid"] for image in shown["images"]} == {frontal.SOPInstanceUID, lateral.SOPInstanceUID}
    assert mend(site.parts).total() == 0, "once is enough"


def test_a_file_is_durable_before_it_is_given_a_row(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (ds,) = make_study(views=("PA",))
    _lose_rows(monkeypatch, site, ds)
    happened: list[str] = []
    fsync, add_arrival = os.fsync, arrivals.add_arrival
    monkeypatch.setattr(os, "fsync", lambda file: (happened.append("sync"), fsync(file)))
    monkeypatch.setattr(arrivals, "add_arrival", lambda *given: (happened.append("row"), add_arrival(*given)))
    mend(site.parts)
    assert happened == ["sync", "sync", "row"], "the file and its folder"


def test_what_a_receiver_commits_at_the_same_time_is_entered_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (ds,) = make_study(views=("PA",))
    _lose_rows(monkeypatch, site, ds)
    mend(site.parts)
    site.receive(ds)
    assert len(site.study(study_uid())["images"]) == 1
    assert site.events(study_uid()) == ["opened"]


def test_a_file_whose_sender_sent_other_content_since_is_not_entered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (ds,) = make_study(views=("PA",))
    _lose_rows(monkeypatch, site, ds)
    ds.PatientComments = "corrected"
    site.receive(ds)
    assert mend(site.parts) == {Fate.SET_ASIDE: 1}
    assert len(site.study(study_uid())["images"]) == 1
    assert "Other content came later" in _detail(site, "file_set_aside")


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM" + bytes(40)])
def test_a_file_that_is_no_dicom_is_moved_aside_and_named(site: Site, content: bytes) -> None:
    name = f"{0xAB:064x}.dcm"
    path = site.parts.data_dir / "received" / "00" / name
    make_folder(path.parent)
    path.write_bytes(content)
    assert mend(site.parts) == {Fate.SET_ASIDE: 1}
    assert not path.exists()
    assert (site.parts.data_dir / "aside" / name).read_bytes() == content
    assert name in _detail(site, "file_set_aside")


def test_a_file_whose_bytes_are_not_those_of_its_name_is_moved_aside(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _lose_rows(monkeypatch, site, make_dx())
    (path,) = site.received_files()
    path.write_bytes(path.read_bytes() + bytes(2))
    assert mend(site.parts) == {Fate.SET_ASIDE: 1}
    assert "not those that its name tells" in _detail(site, "file_set_aside")


def test_a_report_without_a_row_is_moved_aside_once_nobody_is_at_work_on_it(site: Site) -> None:
    site.receive(*make_study(views=("PA",)))
    site.settle()
    (made,) = (site.parts.data_dir / "reports").iterdir()
    stray = made.with_name("1.2.3.dcm")
    stray.write_bytes(made.read_bytes())
    just_now = site.clock().timestamp()
    os.utime(stray, (just_now, just_now))
    assert mend(site.parts) == {Fate.LEFT: 1}
    site.clock.go_on(hours=2)
    assert mend(site.parts) == {Fate.SET_ASIDE: 1}
    assert [*made.parent.iterdir()] == [made]
    assert (site.parts.data_dir / "aside" / "1.2.3.dcm").read_bytes() == made.read_bytes()
    with site.database.read() as connection:
        count, detail = events.count_since(connection, "file_set_aside", since=site.clock())
    assert (count, detail) == (1, "aside/1.2.3.dcm: No row tells of it.")


@pytest.mark.parametrize("settled", [True, False])
def test_a_row_without_its_file_fails_the_study_that_needs_it_and_says_why(site: Site, *, settled: bool) -> None:
    frontal, lateral = make_study()
    site.receive(frontal, lateral)
    if settled:
        site.settle()
    (site.parts.data_dir / site.study(study_uid())["images"][0]["path"]).unlink()
    assert mend(site.parts) == {Fate.LOST: 1}
    shown = site.study(study_uid())
    assert "file_lost" in site.events(study_uid())
    if settled:
        assert shown["state"] == "reported", "what was found stands"
    else:
        assert shown["state"] == "failed"
        assert shown["reason"] == "The stored file of 1 of its images is missing. Send the study again."
    assert mend(site.parts).total() == 0, "once is enough"


def test_a_study_that_lost_a_file_is_analysed_when_it_is_sent_again(site: Site) -> None:
    (ds,) = make_study(views=("PA",))
    site.receive(ds)
    site.received_files()[0].unlink()
    mend(site.parts)
    site.receive(ds)
    site.settle()
    assert site.study(study_uid())["state"] == "reported"
    assert len(site.received_files()) == 1
    assert _checked(site).startswith("1 received files and ")


def test_doctor_warns_of_a_lost_file_of_a_study_that_was_reported_until_it_is_sent_again(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path
) -> None:
    def said() -> tuple[str, str]:
        checks = json.loads(cxr_worker("doctor", "--json")[1])
        return next(("ok" if check["ok"] else "warning", check["detail"]) for check in checks if check["name"] == "lost files")

    site = make_site(test_database.opened, tmp_path / "var")
    site.clock.now = datetime.now(UTC) - timedelta(days=1)
    site.receive(make_dx(), *make_study("deleted", views=("PA",)))
    site.settle()
    with site.database.write() as connection:  # by a rule for keeping
        of_other = select(studies.c.id).where(studies.c.study_uid == study_uid("deleted")).scalar_subquery()
        connection.execute(update(instances).where(instances.c.study_id == of_other).values(gone_at=site.clock()))
    assert said() == ("ok", "none in the last 30 days")
    (site.parts.data_dir / site.study(study_uid())["images"][0]["path"]).unlink()
    site.clock.go_on(minutes=1)
    assert mend(site.parts)[Fate.LOST] == 1
    assert site.study(study_uid())["state"] == "reported"
    assert said() == ("warning", f"1 stored files are missing, of {study_uid()}")
    site.receive(make_dx())
    assert said()[0] == "ok"


@pytest.mark.parametrize("needed", [True, False])
def test_a_crash_while_a_file_was_deleted_leaves_nothing_half_deleted(site: Site, *, needed: bool) -> None:
    site.receive(make_dx())
    (path,) = site.received_files()
    content = path.read_bytes()
    path.rename(path.with_name(f"{path.name}.removed"))
    if not needed:
        with site.database.write() as connection:
            connection.execute(update(instances).values(gone_at=site.clock()))
    mend(site.parts)
    left = [path.read_bytes() for path in (site.parts.data_dir / "received").rglob("*") if path.is_file()]
    assert left == ([content] if needed else [])
    assert "file_lost" not in site.events(study_uid())


def test_a_file_that_another_puts_back_while_it_is_deleted_is_there(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_young = removal.is_young

    def put_back_first(aside: Path, *, now: datetime) -> bool:
        removal.put_back(aside.parent)
        return is_young(aside, now=now)

    monkeypatch.setattr(removal, "is_young", put_back_first)
    assert not discard(whole, now=datetime.now(UTC) + timedelta(days=1))
    assert whole.exists()


def test_a_disk_that_is_not_mounted_has_lost_nothing(site: Site) -> None:
    site.receive(make_dx())
    folder = site.parts.data_dir / "received"
    folder.rename(folder.with_name("elsewhere"))
    assert mend(site.parts).total() == 0
    assert site.study(study_uid())["state"] == "arriving"


def test_a_file_that_was_deleted_on_purpose_meanwhile_is_not_lost(site: Site) -> None:
    site.receive(make_dx())
    with site.database.write() as connection:
        (kept,) = files.received(connection)
        connection.execute(update(instances).values(gone_at=site.clock()))
        assert files.lose(connection, kept.study_id, [kept.id], now=site.clock()) == 0
    assert site.events(study_uid()) == ["opened"]


def test_where_most_files_are_missing_it_is_the_disk_that_is_and_no_study_fails(site: Site) -> None:
    for number in range(12):
        site.receive(*make_study(f"study {number}", views=("PA",)))
    for path in site.received_files()[1:]:
        path.unlink()
    assert mend(site.parts).total() == 0
    assert site.study(study_uid("study 3"))["state"] == "arriving"


def test_a_file_that_is_being_written_is_left_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _lose_rows(monkeypatch, site, make_dx())
    (path,) = site.received_files()
    path.write_bytes(b"not yet whole")
    just_now = site.clock().timestamp()
    os.utime(path, (just_now, just_now))
    assert mend(site.parts) == {Fate.LEFT: 1}
    assert not discard(path, now=site.clock())
    assert path.read_bytes() == b"not yet whole"


@pytest.fixture
def whole(site: Site) -> Path:
    """The file of a study that was analysed."""
    site.receive(*make_study(views=("PA",)))
    site.settle()
    (path,) = site.received_files()
    assert _checked(site) == "1 received files and 1 reports as they should be, 0.0 GiB read"
    return path


def _trouble(site: Site) -> str:
    with pytest.raises(FilesInDisorder) as caught:
        _checked(site)
    return str(caught.value)


def test_the_deep_check_finds_a_bit_that_turned(site: Site, whole: Path) -> None:
    content = bytearray(whole.read_bytes())
    content[-100] ^= 1
    whole.write_bytes(content)
    assert _trouble(site) == f"changed: {whole.relative_to(site.parts.data_dir)}"


def test_the_deep_check_finds_what_is_missing_and_what_is_too_much(site: Site, whole: Path) -> None:
    whole.rename(whole.with_name(f"{0:064x}.dcm"))
    next((site.parts.data_dir / "reports").iterdir()).unlink()
    trouble = _trouble(site)
    assert f"missing: {whole.relative_to(site.parts.data_dir)}" in trouble
    assert "missing: reports/" in trouble
    assert f"without a row: received/{whole.parent.name}/{0:064x}.dcm" in trouble


@pytest.mark.usefixtures("whole")
def test_the_deep_check_finds_reports_that_were_changed_and_files_among_them_that_are_none(site: Site) -> None:
    (made,) = (site.parts.data_dir / "reports").iterdir()
    before = made.read_bytes()
    made.write_bytes(before.replace(b"TEST", b"REST"))
    made.with_name("1.2.3.dcm").write_bytes(b"x")
    made.with_name("1.2.3.dcm").chmod(0o600)
    assert _trouble(site) == f"changed: reports/{made.name}; without a row: reports/1.2.3.dcm"
    with site.database.write() as connection:
        connection.execute(update(reports).values(sha256=None))
    assert _trouble(site) == "without a row: reports/1.2.3.dcm", "one of an earlier release cannot be compared"


def test_the_deep_check_finds_what_others_may_read(site: Site, whole: Path) -> None:
    whole.chmod(0o640)
    whole.parent.chmod(0o711)
    site.parts.data_dir.chmod(0o750)
    assert _trouble(site).count("open to others: ") == 3


def test_the_deep_check_counts_what_it_does_not_name(site: Site, whole: Path) -> None:
    for number in range(12):
        (whole.parent / f"{number:064x}.dcm").touch(0o600)
    assert _trouble(site).endswith("; and 2 more")


def test_doctor_reads_files_when_it_is_asked_to(cxr_worker: Run, test_database: object, tmp_path: Path) -> None:
    site = make_site(test_database.opened, tmp_path / "var")  # type: ignore[attr-defined]
    site.receive(make_dx())
    assert "received files" not in cxr_worker("doctor")[1]
    assert "1 received files and 0 reports as they should be" in cxr_worker("doctor", "--deep")[1]
    site.received_files()[0].unlink()
    code, out, _ = cxr_worker("doctor", "--deep")
    assert code == 1
    assert "missing: received/" in out
    assert "Internal error" not in out
