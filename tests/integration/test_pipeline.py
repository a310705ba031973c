"""The path from store to deliver, on both databases, with a scripted engine and real DICOM peers."""

import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pydicom
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from cxr_models.errors import DeviceBusy, UnknownModel
from dicom_io.errors import InvalidReport
from dicom_io.status import StoreStatus, status_of
from tests.conftest import TestDatabase
from tests.factories import PATIENT, make_dx, make_study, radiograph, study_uid
from tests.fakes import FakePacs, Site, encoded, fail_syncs, free_port, make_site, model_identity, request_for, take_in
from worker import files, pipeline, telling
from worker.db import analyses, delivering, schema, studies
from worker.db.database import Database
from worker.destination import Destination
from worker.errors import DatabaseUnavailable
from worker.keeping.orphans import mend
from worker.pipeline import Parts
from worker.steps.store import make_folders
from worker.values import ReadyStudy, StudyId


@pytest.fixture
def connected(database: Database, tmp_path: Path, pacs: FakePacs) -> Site:
    """A worker that returns Structured Reports to a PACS."""
    return make_site(database, tmp_path / "var", destinations=(pacs.destination(outputs=("sr",)),))


def _changed(ds: Dataset, **attributes: str) -> Dataset:
    changed = pydicom.dcmread(_file_like(ds))
    for keyword, value in attributes.items():
        setattr(changed, keyword, value)
    return changed


def _file_like(ds: Dataset) -> pydicom.filebase.DicomBytesIO:
    buffer = pydicom.filebase.DicomBytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return buffer


def _without(ds: Dataset, keyword: str) -> Dataset:
    changed = _changed(ds)
    delattr(changed, keyword)
    return changed


# receive and store


def test_a_received_object_is_a_file_with_the_very_bytes_and_who_sent_it(site: Site) -> None:
    ds = make_dx()
    take_in(request_for(ds, calling_ae_title="XRAY-ROOM-2"), site.parts)
    (path,) = site.received_files()
    assert path.read_bytes().endswith(encoded(ds))
    meta = pydicom.dcmread(path).file_meta
    assert meta.SourceApplicationEntityTitle == "XRAY-ROOM-2"
    assert meta.ReceivingApplicationEntityTitle == "CXRWORKER"
    assert meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    (image,) = site.study(study_uid())["images"]
    assert site.parts.data_dir / image["path"] == path


def test_the_same_bytes_again_are_one_row_and_one_file(site: Site) -> None:
    site.receive(make_dx())
    site.settle()
    site.receive(make_dx())
    assert len(site.received_files()) == 1
    shown = site.study(study_uid())
    assert len(shown["images"]) == 1
    assert shown["state"] == "reported", "a repetition does not reopen a study"


def test_a_file_that_was_lost_is_written_again_when_its_object_is_sent_again(site: Site) -> None:
    site.receive(make_dx())
    (path,) = site.received_files()
    before = path.read_bytes()
    path.unlink()
    site.receive(make_dx())
    assert path.read_bytes() == before


@pytest.mark.parametrize("place", [-100, 128])
def test_a_file_whose_bytes_changed_on_disk_is_replaced_when_its_object_is_sent_again(site: Site, place: int) -> None:
    site.receive(make_dx())
    site.settle()
    (path,) = site.received_files()
    before = path.read_bytes()
    damaged = bytearray(before)
    damaged[place] ^= 0x01
    path.write_bytes(damaged)
    site.receive(make_dx())
    assert site.received_files() == [path]
    assert path.read_bytes() == before
    assert len(site.study(study_uid())["images"]) == 1


def test_a_study_whose_file_was_damaged_before_it_was_analysed_is_analysed_when_it_is_sent_again(site: Site) -> None:
    site.receive(make_dx())
    os.truncate(site.received_files()[0], 1000)
    site.settle()
    assert site.study(study_uid())["state"] == "not_analysed"
    site.receive(make_dx())
    site.settle()
    assert site.study(study_uid())["state"] == "reported"
    assert "restored" in site.events(study_uid())


def test_an_object_that_two_senders_enter_one_after_the_other_reopens_no_study(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.receive(make_dx())
    site.settle()
    with monkeypatch.context() as at_the_same_time:
        at_the_same_time.setattr(Path, "exists", lambda _: False)  # as the second one saw it
        site.receive(make_dx())
    assert site.study(study_uid())["state"] == "reported"


def test_a_repetition_that_cannot_be_compared_now_is_to_be_sent_again_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    site.receive(make_dx())
    with monkeypatch.context() as short:
        short.setattr("worker.steps.store.dataset_digest", no_descriptor)
        with pytest.raises(OSError, match="Too many") as caught:
            site.receive(make_dx())
    assert status_of(caught.value) == StoreStatus.OUT_OF_RESOURCES


def test_of_an_object_that_was_neither_durable_nor_entered_nothing_is_taken_for_whole(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> NoReturn:
        raise DatabaseUnavailable("away")

    make_folders(site.parts.data_dir)
    with monkeypatch.context() as broken:
        fail_syncs(broken, errno.EIO)
        broken.setattr(site.database, "write_with_others", away)
        with pytest.raises(DatabaseUnavailable):
            site.receive(make_dx())
    assert [path.stat().st_size for path in site.received_files()] == [0]
    mend(site.parts)
    with pytest.raises(AssertionError):
        site.study(study_uid())
    site.receive(make_dx())
    assert len(site.study(study_uid())["images"]) == 1


def test_a_study_that_was_reported_and_whose_file_is_restored_is_not_reported_twice(connected: Site, pacs: FakePacs) -> None:
    connected.receive(make_dx())
    connected.settle()
    assert connected.deliver() == 1
    (path,) = connected.received_files()
    os.truncate(path, 1000)
    connected.receive(make_dx())
    connected.settle()
    assert connected.deliver() == 0
    assert connected.study(study_uid())["state"] == "delivered"
    assert len(pacs.received) == 1


def test_other_content_under_the_same_uid_is_kept_beside_and_flagged(site: Site) -> None:
    first = make_dx(radiograph(seed=1))
    second = make_dx(radiograph(seed=2))
    assert first.SOPInstanceUID == second.SOPInstanceUID
    site.receive(first, second)
    assert {hashlib.sha256(path.read_bytes()[-1000:]).hexdigest() for path in site.received_files()} == {
        hashlib.sha256(encoded(ds)[-1000:]).hexdigest() for ds in (first, second)
    }
    assert [image["conflict"] for image in site.study(study_uid())["images"]] == [False, True]
    assert "conflict" in site.events(study_uid())


def test_the_newest_content_under_a_uid_is_the_one_analysed(site: Site) -> None:
    site.receive(make_dx(radiograph(seed=1)), make_dx(radiograph(seed=2)))
    site.settle()
    images = site.study(study_uid())["images"]
    assert [len(image["predictions"]) for image in images] == [0, 1]


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_an_object_without_a_uid_is_refused_as_a_mismatch_and_not_kept(site: Site, keyword: str) -> None:
    ds = make_dx()
    request = request_for(ds, dataset=encoded(_without(ds, keyword)))
    with pytest.raises(Exception, match=f"{keyword} is missing") as caught:
        take_in(request, site.parts)
    assert status_of(caught.value) == 0xA900
    assert site.received_files() == []


@pytest.mark.parametrize("field", ["sop_class_uid", "sop_instance_uid"])
def test_an_object_that_contradicts_its_request_is_refused_as_a_mismatch(site: Site, field: str) -> None:
    request = replace(request_for(make_dx()), **{field: "1.2.3.4"})
    with pytest.raises(Exception, match="differs from the Affected SOP") as caught:
        take_in(request, site.parts)
    assert status_of(caught.value) == 0xA900
    assert site.received_files() == []


def test_nonsense_is_refused_as_not_understood(site: Site) -> None:
    request = request_for(make_dx(), dataset=b"\x08\x00\x16\x00ZZ" + bytes(range(256)) * 4)
    with pytest.raises(Exception, match="cannot be") as caught:
        take_in(request, site.parts)
    assert status_of(caught.value) == 0xC000


@pytest.mark.parametrize("failing", ["write", "fsync", "link"])
def test_a_full_disk_is_out_of_resources_and_leaves_nothing_behind(
    site: Site, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(files.os, failing, full)
        with pytest.raises(OSError, match="No space") as caught:
            site.receive(make_dx())
    assert status_of(caught.value) == 0xA700
    assert site.received_files() == []
    site.receive(make_dx())
    assert len(site.received_files()) == 1


def test_a_database_that_is_away_is_out_of_resources_and_the_object_is_taken_later(
    test_database: TestDatabase, tmp_path: Path
) -> None:
    site = make_site(test_database.opened, tmp_path / "var")
    with test_database.away(), pytest.raises(DatabaseUnavailable) as caught:
        site.receive(make_dx())
    assert status_of(caught.value) == StoreStatus.OUT_OF_RESOURCES
    site.receive(make_dx())
    assert len(site.study(study_uid())["images"]) == 1


def test_an_object_whose_row_failed_after_its_file_was_written_is_entered_when_sent_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> NoReturn:
        raise DatabaseUnavailable

    with monkeypatch.context() as broken:
        broken.setattr(site.database, "write_with_others", away)
        with pytest.raises(DatabaseUnavailable):
            site.receive(make_dx())
    assert len(site.received_files()) == 1
    site.receive(make_dx())
    assert len(site.study(study_uid())["images"]) == 1
    assert len(site.received_files()) == 1


# complete


def test_a_study_is_complete_when_it_was_quiet_for_the_quiet_time_and_not_before(site: Site) -> None:
    site.receive(make_dx())
    site.clock.go_on(seconds=4.9)
    pipeline.advance(site.parts)
    assert site.study(study_uid())["state"] == "arriving"
    site.clock.go_on(seconds=0.1)
    pipeline.advance(site.parts)
    assert site.study(study_uid())["state"] == "reported"


def test_every_image_starts_the_quiet_time_again(site: Site) -> None:
    for ds in make_study(views=("PA", "AP", "LL")):
        site.receive(ds)
        site.clock.go_on(seconds=4)
        pipeline.advance(site.parts)
        assert site.study(study_uid())["state"] == "arriving"


# select, predict, record


def test_a_study_of_a_lateral_alone_is_not_analysed_and_says_why(site: Site) -> None:
    site.receive(*make_study(views=("LL",)))
    site.settle()
    shown = site.study(study_uid())
    assert shown["state"] == "not_analysed"
    assert "ViewPosition is LL" in shown["reason"]
    assert shown["reports"] == []
    (image,) = shown["images"]
    assert image["eligible"] is False
    assert image["reason"]
    assert image["predictions"] == []


def test_a_second_patient_in_one_study_fails_it_with_the_reason_until_the_sender_corrects_it(site: Site) -> None:
    frontal, lateral = make_study()
    site.receive(frontal, _changed(lateral, PatientID="SOMEBODY-ELSE"))
    site.settle()
    shown = site.study(study_uid())
    assert shown["state"] == "failed"
    assert "different Patient IDs" in shown["reason"]
    assert shown["reports"] == []
    assert all(image["predictions"] == [] for image in shown["images"])
    assert "patient_changed" in site.events(study_uid())
    site.receive(lateral)
    site.settle()
    assert site.study(study_uid())["state"] == "reported"


def test_a_study_of_two_patients_does_not_hold_up_one_of_one(site: Site) -> None:
    frontal, lateral = make_study("two")
    site.receive(frontal, _changed(lateral, PatientID="SOMEBODY-ELSE"), *make_study("one"))
    site.settle()
    assert site.study(study_uid("two"))["state"] == "failed"
    assert site.study(study_uid("one"))["state"] == "reported"


@pytest.mark.parametrize(("label", "triage"), [("COVID-19", "urgent"), ("Pneumonia", "high"), ("Normal", "routine")])
def test_the_triage_level_is_that_of_the_label(site: Site, label: str, triage: str) -> None:
    ds = make_dx()
    site.engine.labels[ds.SOPInstanceUID] = label
    site.receive(ds)
    site.settle()
    shown = site.study(study_uid())
    assert shown["triage"] == triage
    assert shown["images"][0]["predictions"][0]["label"] == label


def test_triage_never_falls(site: Site) -> None:
    ds = make_dx()
    site.engine.labels[ds.SOPInstanceUID] = "COVID-19"
    site.receive(ds)
    site.settle()
    site.engine.labels.clear()
    site.engine.model = model_identity("2.0")
    _reprocess(site)
    site.settle()
    shown = site.study(study_uid())
    assert shown["images"][0]["predictions"][-1]["label"] == "Normal"
    assert shown["triage"] == "urgent"


def test_a_study_reopened_while_it_is_analysed_is_not_recorded_with_the_old_images(site: Site) -> None:
    frontal, lateral = make_study()
    site.receive(frontal)

    class Interrupted:
        def analyse(self, ready: list[ReadyStudy]) -> Iterator[object]:
            for outcome in site.engine.analyse(ready):
                site.receive(lateral)
                yield outcome

    parts = replace(site.parts, engine=Interrupted)
    site.clock.go_on(seconds=5)
    pipeline.complete_studies(parts)
    pipeline.analyse_studies(parts)
    shown = site.study(study_uid())
    assert shown["state"] == "arriving"
    assert all(image["predictions"] == [] for image in shown["images"])
    site.settle()
    shown = site.study(study_uid())
    assert (shown["state"], shown["generation"], len(shown["reports"])) == ("reported", 2, 1)


# failing engines


def test_a_study_that_breaks_the_engine_is_put_off_and_then_tried_alone(site: Site) -> None:
    site.engine.breaks_on[study_uid("bad")] = RuntimeError("boom")
    site.receive(*make_study("bad", views=("PA",)))
    site.clock.go_on(seconds=1)
    site.receive(*make_study("good", views=("PA",)))
    site.settle()
    assert site.engine.batches == [[study_uid("bad"), study_uid("good")]]
    site.clock.go_on(seconds=30)
    pipeline.advance(site.parts)
    assert sorted(site.engine.batches[1:]) == sorted([[study_uid("bad")], [study_uid("good")]])
    assert site.study(study_uid("good"))["state"] == "reported"
    assert site.study(study_uid("bad"))["state"] == "ready"


def test_a_study_that_always_breaks_the_engine_is_given_up_after_ten_attempts_with_the_reason(site: Site) -> None:
    site.engine.breaks_on[study_uid()] = UnknownModel("There is no model 'lost'.")
    site.receive(make_dx())
    site.clock.go_on(seconds=5)
    for _ in range(30):
        pipeline.advance(site.parts)
        site.clock.go_on(minutes=10)
    assert len(site.engine.batches) == 10
    shown = site.study(study_uid())
    assert shown["state"] == "failed"
    assert shown["reason"] == "There is no model 'lost'. Given up after 10 attempts."


def test_an_engine_that_recovers_finishes_what_it_put_off(site: Site) -> None:
    site.engine.breaks_on[study_uid()] = DeviceBusy()
    site.receive(make_dx())
    site.settle()
    assert site.study(study_uid())["state"] == "ready"
    site.engine.breaks_on.clear()
    site.clock.go_on(seconds=29)
    pipeline.advance(site.parts)
    assert site.study(study_uid())["state"] == "ready"
    site.clock.go_on(seconds=1)
    pipeline.advance(site.parts)
    assert site.study(study_uid())["state"] == "reported"


def test_a_study_that_ends_the_process_at_every_attempt_is_given_up_and_takes_no_other_with_it(site: Site) -> None:
    class Killed(BaseException):
        """Stands for the process's sudden end: no handler of ours runs."""

    class Engine:
        def __init__(self) -> None:
            self.deaths = 0

        def analyse(self, ready: list[ReadyStudy]) -> Iterator[object]:
            for study in ready:
                if study.study_uid == study_uid("bad"):
                    self.deaths += 1
                    raise Killed
                yield from site.engine.analyse([study])

    engine = Engine()
    parts = replace(site.parts, engine=lambda: engine)
    site.receive(*make_study("bad", views=("PA",)))
    for name in ("good", "better"):
        site.clock.go_on(seconds=1)
        site.receive(*make_study(name, views=("PA",)))
    site.clock.go_on(seconds=5)
    _run_with_restarts(parts, Killed)
    assert engine.deaths == 10
    shown = site.study(study_uid("bad"))
    assert shown["state"] == "failed"
    assert "10 attempts" in shown["reason"]
    assert site.study(study_uid("good"))["state"] == "reported"
    assert site.study(study_uid("better"))["state"] == "reported"


def test_what_was_analysed_is_told_before_more_is_analysed_the_most_urgent_first(site: Site) -> None:
    class Killed(BaseException):
        """Stands for the process's sudden end."""

    def killed(_: list[ReadyStudy]) -> NoReturn:
        told.extend(name for name in ("routine", "urgent") if site.study(study_uid(name))["reports"])
        raise Killed

    told: list[str] = []
    for name in ("routine", "urgent"):
        (ds,) = make_study(name, views=("PA",))
        site.engine.labels[ds.SOPInstanceUID] = "COVID-19" if name == "urgent" else "Normal"
        site.receive(ds)
    site.clock.go_on(seconds=5)
    pipeline.complete_studies(site.parts)
    pipeline.analyse_studies(site.parts)
    assert {site.study(study_uid(name))["state"] for name in ("routine", "urgent")} == {"analysed"}
    site.receive(*make_study("later", views=("PA",)))
    site.clock.go_on(seconds=5)
    site.engine.analyse = killed  # type: ignore[method-assign, assignment]  # every batch ends the process
    with pytest.raises(Killed):
        pipeline.advance(site.parts)
    assert told == ["routine", "urgent"]
    with site.database.read() as connection:
        made = connection.execute(select(schema.reports.c.study_id).order_by(schema.reports.c.id)).scalars().all()
        assert made == [studies.find(connection, study_uid(name)) for name in ("urgent", "routine")]


def test_what_was_tried_before_holds_up_no_report_of_what_is_new(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "TRIED_AT_ONCE", 2)
    tried = [f"tried {number}" for number in range(5)]
    for name in tried:
        site.receive(*make_study(name, views=("PA",)))
    site.engine.breaks_on[study_uid("tried 0")] = DeviceBusy()
    site.settle()
    site.engine.breaks_on.clear()
    site.receive(*make_study("new", views=("PA",)))
    site.clock.go_on(minutes=1)
    pipeline.advance(site.parts)
    assert site.engine.batches[1:] == [[study_uid("new")], *([study_uid(name)] for name in tried[:2])]
    assert site.study(study_uid("new"))["state"] == "reported"
    site.settle()
    assert {site.study(study_uid(name))["state"] for name in tried} == {"reported"}


def test_a_backlog_is_called_complete_some_at_a_time_the_longest_quiet_first(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "STUDIES_AT_ONCE", 2)
    for name in ("first", "second", "third"):
        site.receive(*make_study(name, views=("PA",)))
        site.clock.go_on(seconds=10)
    assert pipeline.complete_studies(site.parts) == 2
    assert [site.study(study_uid(name))["state"] for name in ("first", "second", "third")] == ["ready", "ready", "arriving"]
    site.settle()
    assert site.study(study_uid("third"))["state"] == "reported"


def _run_with_restarts(parts: Parts, death: type[BaseException]) -> None:
    for _ in range(30):
        try:
            while pipeline.advance(parts):
                pass
        except death:
            with parts.database.write() as connection:
                analyses.release(connection)  # as the next runner does when it starts


def test_a_study_the_engine_says_nothing_of_is_put_off_and_given_up_in_the_end(site: Site) -> None:
    site.engine.silent_on.add(study_uid())
    site.receive(make_dx())
    site.settle()
    assert len(site.engine.batches) == 1, "put off, not tried again at once"
    for _ in range(30):
        site.clock.go_on(minutes=10)
        pipeline.advance(site.parts)
    assert site.study(study_uid())["state"] == "failed"
    assert len(site.engine.batches) == 10


def test_a_database_that_goes_away_during_analysis_loses_nothing(test_database: TestDatabase, tmp_path: Path) -> None:
    site = make_site(test_database.opened, tmp_path / "var")
    site.receive(make_dx())
    site.clock.go_on(seconds=5)
    pipeline.complete_studies(site.parts)

    class CutOff:
        def analyse(self, ready: list[ReadyStudy]) -> Iterator[object]:
            outcomes = list(site.engine.analyse(ready))
            with test_database.away():
                yield from outcomes

    with pytest.raises(DatabaseUnavailable):
        pipeline.analyse_studies(replace(site.parts, engine=CutOff))
    site.settle()
    assert site.study(study_uid())["state"] == "ready", "claimed for some time yet"
    site.clock.go_on(seconds=30)
    site.settle()
    assert site.study(study_uid())["state"] == "reported"


# report


def test_a_report_is_made_even_where_nobody_is_to_receive_it(site: Site) -> None:
    site.receive(make_dx())
    site.settle()
    shown = site.study(study_uid())
    assert [report["kind"] for report in shown["reports"]] == ["sr"]
    assert shown["deliveries"] == []
    assert (site.parts.data_dir / "reports" / f"{shown['reports'][0]['sop_instance_uid']}.dcm").exists()


def test_every_destination_gets_the_outputs_it_asked_for(database: Database, tmp_path: Path) -> None:
    def destination(name: str, **changes: object) -> Destination:
        return Destination.model_validate(
            {"name": name, "ae_title": "X", "host": "127.0.0.1", "port": 1, "outputs": ["sr"], **changes}
        )

    destinations = (
        destination("both", outputs=["sr", "capture"]),
        destination("air", sr_sop_class="comprehensive-3d"),
        destination("pictures", outputs=["capture"]),
    )
    site = make_site(database, tmp_path / "var", destinations=destinations)
    site.receive(make_dx())
    site.settle()
    shown = site.study(study_uid())
    classes = sorted(report["sop_class_uid"].removeprefix("1.2.840.10008.5.1.4.1.1.") for report in shown["reports"])
    assert classes == ["7", "88.33", "88.34"]
    assert sorted((delivery["destination"], delivery["kind"]) for delivery in shown["deliveries"]) == [
        ("air", "sr"),
        ("both", "capture"),
        ("both", "sr"),
        ("pictures", "capture"),
    ]


def test_making_the_reports_twice_makes_one(connected: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    connected.receive(make_dx())
    connected.clock.go_on(seconds=5)
    with monkeypatch.context() as dying:
        dying.setattr(studies, "advance_state", lambda *_, **__: (_ for _ in ()).throw(DatabaseUnavailable()))
        with pytest.raises(DatabaseUnavailable):
            pipeline.advance(connected.parts)
    assert connected.study(study_uid())["state"] == "analysed"
    connected.settle()
    shown = connected.study(study_uid())
    assert (shown["state"], len(shown["reports"]), len(shown["deliveries"])) == ("reported", 1, 1)


def test_a_late_image_reopens_the_study_and_its_report_names_the_one_before(connected: Site, pacs: FakePacs) -> None:
    first, second = make_study(views=("PA", "AP"))
    connected.receive(first)
    connected.settle()
    connected.deliver()
    connected.receive(second)
    assert connected.study(study_uid())["state"] == "arriving"
    connected.settle()
    connected.deliver()
    shown = connected.study(study_uid())
    assert (shown["state"], shown["generation"]) == ("delivered", 2)
    old, new = pacs.received
    assert "PredecessorDocumentsSequence" not in old
    referenced = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert referenced.ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert old.SOPInstanceUID != new.SOPInstanceUID


def test_a_late_image_that_changes_nothing_makes_no_second_report(connected: Site, pacs: FakePacs) -> None:
    frontal, lateral = make_study()
    connected.receive(frontal)
    connected.settle()
    connected.deliver()
    connected.receive(lateral)
    connected.settle()
    connected.deliver()
    shown = connected.study(study_uid())
    assert (shown["state"], shown["generation"]) == ("delivered", 2)
    assert len(shown["reports"]) == 1
    assert len(pacs.received) == 1


def _reprocess(site: Site) -> int:
    return pipeline.reprocess_outdated(site.parts, site.engine.model)


def test_another_model_version_makes_a_new_report_that_names_the_one_before(connected: Site, pacs: FakePacs) -> None:
    connected.receive(make_dx())
    connected.settle()
    connected.deliver()
    connected.engine.model = model_identity("2.0")
    assert _reprocess(connected) == 1
    connected.settle()
    connected.deliver()
    old, new = pacs.received
    referenced = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert referenced.ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert [answer["version"] for answer in connected.study(study_uid())["images"][0]["predictions"]] == ["1.0", "2.0"]


def test_a_version_that_reads_the_same_weights_otherwise_is_another_model(connected: Site) -> None:
    connected.receive(make_dx())
    connected.settle()
    connected.engine.model = replace(connected.engine.model, version="1.1")
    assert _reprocess(connected) == 1
    connected.settle()
    assert [answer["version"] for answer in connected.study(study_uid())["images"][0]["predictions"]] == ["1.0", "1.1"]
    assert _reprocess(connected) == 0


def test_studies_answered_by_the_active_model_are_not_reprocessed(site: Site) -> None:
    site.receive(make_dx())
    site.settle()
    assert _reprocess(site) == 0


def test_reprocessing_with_the_same_model_makes_no_second_report(connected: Site, pacs: FakePacs) -> None:
    connected.receive(make_dx())
    connected.settle()
    connected.deliver()
    with connected.database.write() as connection:
        study_id = studies.find(connection, study_uid())
        assert study_id is not None
        assert studies.analyse_again(connection, [study_id], now=connected.clock(), why="test") == 1
    connected.settle()
    connected.deliver()
    shown = connected.study(study_uid())
    assert (shown["state"], shown["generation"], len(shown["reports"])) == ("delivered", 2, 1)
    assert len(pacs.received) == 1


def test_a_report_that_cannot_be_made_fails_its_study_and_no_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    build = telling.build

    def sometimes(study: object, *arguments: object, **more: object) -> Dataset:
        if study.study_uid == study_uid("bad"):
            raise InvalidReport("Too odd.")
        return build(study, *arguments, **more)

    monkeypatch.setattr(telling, "build", sometimes)
    site.receive(*make_study("bad", views=("PA",)), *make_study("good", views=("PA",)))
    site.settle()
    bad = site.study(study_uid("bad"))
    assert (bad["state"], bad["reason"]) == ("failed", "The report cannot be made: Too odd.")
    assert site.study(study_uid("good"))["state"] == "reported"


def test_a_study_whose_image_is_gone_from_disk_fails_and_holds_up_no_other(site: Site) -> None:
    site.receive(*make_study("bad", views=("PA",)))
    site.clock.go_on(seconds=5)
    pipeline.complete_studies(site.parts)
    pipeline.analyse_studies(site.parts)
    for path in site.received_files():
        path.unlink()
    site.receive(*make_study("good", views=("PA",)))
    site.settle()
    bad = site.study(study_uid("bad"))
    assert bad["state"] == "failed"
    assert "cannot be made" in bad["reason"]
    assert site.study(study_uid("good"))["state"] == "reported"


def test_the_most_urgent_reports_are_made_and_sent_first(connected: Site, pacs: FakePacs) -> None:
    for name, label in (("normal", "Normal"), ("pneumonia", "Pneumonia"), ("covid", "COVID-19")):
        (ds,) = make_study(name, views=("PA",))
        connected.engine.labels[ds.SOPInstanceUID] = label
        connected.receive(ds)
    connected.settle()
    connected.deliver()
    assert [ds.StudyInstanceUID for ds in pacs.received] == [study_uid(name) for name in ("covid", "pneumonia", "normal")]


# deliver


def test_a_delivered_study_says_where_its_report_is(connected: Site, pacs: FakePacs) -> None:
    connected.receive(make_dx())
    connected.settle()
    assert connected.deliver() == 1
    shown = connected.study(study_uid())
    assert shown["state"] == "delivered"
    (delivery,) = shown["deliveries"]
    assert (delivery["destination"], delivery["state"], delivery["attempts"]) == ("pacs", "delivered", 1)
    assert (delivery["last_error"], delivery["committed"]) == (None, False)
    assert [ds.SOPInstanceUID for ds in pacs.received] == [shown["reports"][0]["sop_instance_uid"]]
    assert connected.deliver() == 0
    assert len(pacs.received) == 1


def test_attempts_wait_30_seconds_doubling_to_10_minutes_and_end_after_ten(connected: Site, pacs: FakePacs) -> None:
    pacs.status = 0xA700
    connected.receive(make_dx())
    connected.settle()
    waited = []
    for attempt in range(1, 11):
        connected.deliver()
        (delivery,) = connected.study(study_uid())["deliveries"]
        assert delivery["attempts"] == attempt
        assert "0xA700" in delivery["last_error"]
        if attempt == 10:
            break
        with connected.database.read() as connection:
            due = delivering.next_due(connection, "pacs")
        assert due is not None
        waited.append((due - connected.clock()).total_seconds())
        connected.clock.now = due
    assert waited == [30, 60, 120, 240, 480, 600, 600, 600, 600]
    assert delivery["state"] == "on_hold"
    assert connected.study(study_uid())["state"] == "reported"
    assert "delivery_on_hold" in connected.events(study_uid())
    connected.clock.go_on(days=1)
    connected.deliver()
    connected.deliver()
    assert len(pacs.encoded) == 11, "one more, to see"


def test_nothing_is_sent_before_its_next_attempt_is_due(connected: Site, pacs: FakePacs) -> None:
    pacs.status = 0xA700
    connected.receive(make_dx())
    connected.settle()
    connected.deliver()
    connected.clock.go_on(seconds=29)
    connected.deliver()
    assert len(pacs.encoded) == 1
    pacs.status = 0x0000
    connected.clock.go_on(seconds=1)
    assert connected.deliver() == 1
    assert connected.study(study_uid())["state"] == "delivered"


def test_a_delivery_given_up_is_sent_again_when_asked_for(connected: Site, pacs: FakePacs) -> None:
    pacs.status = 0xC000
    connected.receive(make_dx())
    connected.settle()
    for _ in range(10):
        connected.deliver()
        connected.clock.go_on(minutes=10)
    with connected.database.write() as connection:
        assert delivering.retry(connection, [1], now=connected.clock()) == 1
        assert delivering.retry(connection, [4711], now=connected.clock()) == 0
    pacs.status = 0x0000
    assert connected.deliver() == 1
    assert connected.study(study_uid())["state"] == "delivered"
    with connected.database.write() as connection:
        assert delivering.retry(connection, [1], now=connected.clock()) == 0, "what is delivered is not sent again"


def test_a_dead_destination_does_not_hold_up_another(database: Database, tmp_path: Path, pacs: FakePacs) -> None:
    dead = pacs.destination("dead", outputs=("sr",), port=free_port())
    site = make_site(database, tmp_path / "var", destinations=(dead, pacs.destination(outputs=("sr",))))
    site.receive(make_dx())
    site.settle()
    assert site.deliver() == 1
    states = {delivery["destination"]: delivery["state"] for delivery in site.study(study_uid())["deliveries"]}
    assert states == {"dead": "pending", "pacs": "delivered"}
    assert site.study(study_uid())["state"] == "reported"


def test_a_report_whose_file_is_gone_does_not_hold_up_the_others(connected: Site, pacs: FakePacs) -> None:
    connected.receive(*make_study("lost", views=("PA",)), *make_study("kept", views=("PA",)))
    connected.settle()
    lost = connected.study(study_uid("lost"))["reports"][0]["sop_instance_uid"]
    (connected.parts.data_dir / "reports" / f"{lost}.dcm").unlink()
    assert connected.deliver() == 1
    assert [ds.StudyInstanceUID for ds in pacs.received] == [study_uid("kept")]
    (delivery,) = connected.study(study_uid("lost"))["deliveries"]
    assert delivery["state"] == "pending"
    assert "file is missing" in delivery["last_error"]


def test_a_study_reopened_before_delivery_is_delivered_in_the_end(connected: Site, pacs: FakePacs) -> None:
    frontal, lateral = make_study()
    connected.receive(frontal)
    connected.settle()
    connected.receive(lateral)
    connected.deliver()
    assert connected.study(study_uid())["state"] == "arriving"
    connected.settle()
    assert connected.study(study_uid())["state"] == "delivered"
    assert len(pacs.received) == 1


def test_reports_carry_the_identity_of_the_images_and_nothing_else(connected: Site, pacs: FakePacs) -> None:
    connected.receive(make_dx())
    connected.settle()
    connected.deliver()
    (sr,) = pacs.received
    assert (sr.PatientID, str(sr.PatientName)) == (PATIENT.patient_id, PATIENT.name)
    assert (sr.StudyInstanceUID, sr.AccessionNumber) == (study_uid(), "ACC-1")
    assert sr.Modality == "SR"


def test_nothing_is_asked_of_a_destination_that_is_due_nothing(connected: Site, pacs: FakePacs) -> None:
    assert connected.deliver() == 0
    assert pacs.proposed == []


# abstention


def test_an_undetermined_answer_is_recorded_reported_and_as_urgent_as_before(site: Site) -> None:
    frontal = str(make_study()[0].SOPInstanceUID)
    site.engine.labels, site.engine.undetermined = {frontal: "Pneumonia"}, {frontal}
    site.receive(*make_study())
    site.settle()
    study = site.study(study_uid())
    (prediction,) = study["images"][0]["predictions"]
    assert (prediction["undetermined"], prediction["label"], prediction["flagged"]) == (True, "Pneumonia", True)
    assert prediction["probabilities"]["Pneumonia"] == 0.8
    assert study["triage"] == "high"
    (report,) = [each for each in study["reports"] if each["kind"] == "sr"]
    content = (site.parts.data_dir / "reports" / f"{report['sop_instance_uid']}.dcm").read_bytes()
    assert b"pneumonia suspected; undetermined: the model is not sure" in content


def test_a_model_that_becomes_sure_makes_a_new_report(site: Site) -> None:
    frontal = str(make_study()[0].SOPInstanceUID)
    site.engine.undetermined = {frontal}
    site.receive(*make_study())
    site.settle()
    site.engine.undetermined = set()
    with site.database.write() as connection:
        studies.analyse_again(connection, [StudyId(1)], now=site.clock(), why="test")
    site.settle()
    study = site.study(study_uid())
    assert [each["kind"] for each in study["reports"]] == ["sr", "sr"]
    assert [each["undetermined"] for each in study["images"][0]["predictions"]] == [True, False]
