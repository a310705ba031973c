"""What the sender sent last counts, what the PACS has last is what the database says, and nothing outdated is sent."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from tests.factories import PATIENT, make_dx, make_study, study_uid
from tests.fakes import FakePacs, Site, make_site, model_identity
from worker import pipeline, telling
from worker.db.database import Database
from worker.steps import report as report_step
from worker.values import ReadyStudy

OTHER = replace(PATIENT, patient_id="SOMEBODY-ELSE")


@pytest.fixture
def connected(database: Database, tmp_path: Path, pacs: FakePacs) -> Site:
    return make_site(database, tmp_path / "var", destinations=(pacs.destination(outputs=("sr",)),))


def predecessor_of(report: Dataset) -> str:
    return str(
        report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    )


def test_a_film_corrected_and_sent_as_before_is_reported_on_the_patient_who_was_sent_last(
    connected: Site, pacs: FakePacs
) -> None:
    for patient in (PATIENT, OTHER, PATIENT):
        connected.receive(make_dx(patient=patient))
        connected.settle()
        connected.deliver()
    assert [report.PatientID for report in pacs.received] == ["TEST-0001", "SOMEBODY-ELSE", "TEST-0001"]
    first, second, third = pacs.received
    assert predecessor_of(second) == first.SOPInstanceUID
    assert predecessor_of(third) == second.SOPInstanceUID
    assert connected.study(study_uid())["patient_id"] == "TEST-0001"


def test_the_clock_set_back_between_two_contents_does_not_change_which_came_last(connected: Site, pacs: FakePacs) -> None:
    connected.receive(make_dx(patient=OTHER))
    connected.clock.now -= timedelta(hours=1)
    connected.receive(make_dx(patient=PATIENT))
    connected.settle()
    connected.deliver()
    assert [report.PatientID for report in pacs.received] == ["TEST-0001"]


def test_a_report_that_waits_is_not_sent_once_another_patient_is_named(connected: Site, pacs: FakePacs) -> None:
    connected.receive(make_dx(patient=OTHER))
    connected.settle()
    connected.receive(make_dx(patient=PATIENT))
    connected.settle()
    connected.deliver()
    assert [report.PatientID for report in pacs.received] == ["TEST-0001"]
    shown = connected.study(study_uid())
    assert [delivery["state"] for delivery in shown["deliveries"]] == ["superseded", "delivered"]
    assert shown["state"] == "delivered"


@pytest.mark.parametrize(
    "issuers",
    [("", "B"), ("A", ""), ("A", "A"), ("A", "B"), ("A", "", "B"), ("", "A", "", "B")],
    ids=["named late", "not named again", "same", "another", "another after none", "another between none"],
)
def test_a_report_that_waits_is_not_sent_once_another_issuer_of_its_patient_id_is_named(
    connected: Site, pacs: FakePacs, issuers: tuple[str, ...]
) -> None:
    images = make_study(views=("PA", *["LL"] * (len(issuers) - 1)))
    for ds, issuer in zip(images, issuers, strict=True):
        ds.IssuerOfPatientID = issuer
    connected.receive(*images[:-1])
    connected.settle()
    connected.receive(images[-1])
    connected.deliver()
    conflict = len({*issuers} - {""}) > 1
    assert len(pacs.received) == (0 if conflict else 1)
    assert ("patient_changed" in connected.events(study_uid())) is conflict
    connected.settle()
    shown = connected.study(study_uid())
    assert (shown["state"] == "failed") is conflict
    assert ("different Patient IDs or issuers" in (shown["reason"] or "")) is conflict


def test_an_issuer_is_not_forgotten_for_an_image_of_another_patient_that_was_corrected(connected: Site, pacs: FakePacs) -> None:
    frontal, lateral, last = make_study(views=("PA", "LL", "LL"))
    frontal.IssuerOfPatientID, last.IssuerOfPatientID = "A", "B"
    wrong = deepcopy(lateral)
    wrong.PatientID = "SOMEBODY-ELSE"
    connected.receive(frontal, wrong, lateral)
    connected.settle()
    assert connected.study(study_uid())["state"] == "reported"
    connected.receive(last)
    connected.deliver()
    assert pacs.received == []


def test_a_report_is_not_queued_when_an_image_came_while_it_was_made(
    connected: Site, pacs: FakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected.receive(make_dx(patient=OTHER))

    def interrupted(*arguments: object, **more: object) -> Dataset | None:
        monkeypatch.setattr(telling, "build", report_step.build)
        connected.receive(make_dx(patient=PATIENT))
        return report_step.build(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(telling, "build", interrupted)
    connected.settle()
    assert connected.study(study_uid())["reports"] == []
    connected.settle()
    connected.deliver()
    assert [report.PatientID for report in pacs.received] == ["TEST-0001"]


def test_a_model_changed_and_changed_back_is_told_again(connected: Site, pacs: FakePacs) -> None:
    connected.receive(make_dx())
    for version in ("1.0", "2.0", "1.0"):
        connected.engine.model = model_identity(version)
        pipeline.reprocess_outdated(connected.parts, connected.engine.model)
        connected.settle()
        connected.deliver()
    first, second, third = pacs.received
    assert predecessor_of(third) == second.SOPInstanceUID
    assert len({report.SOPInstanceUID for report in (first, second, third)}) == 3


def test_a_report_carries_the_level_of_the_study_which_never_falls(connected: Site, pacs: FakePacs) -> None:
    ds = make_dx()
    connected.engine.labels[ds.SOPInstanceUID] = "COVID-19"
    connected.receive(ds)
    connected.settle()
    connected.engine.labels.clear()
    connected.engine.model = model_identity("2.0")
    pipeline.reprocess_outdated(connected.parts, connected.engine.model)
    connected.settle()
    connected.deliver()
    assert b"AI triage urgent, kept from an earlier result: no finding flagged" in pacs.encoded[-1]
    assert b"ACR Category 1" in pacs.encoded[-1]


def test_one_study_whose_report_cannot_be_made_holds_up_no_other_and_is_tried_again(
    connected: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(study: object, *arguments: object, **more: object) -> Dataset | None:
        if study.study_uid == study_uid("bad"):  # type: ignore[attr-defined]
            raise OSError(5, "Input/output error")
        return report_step.build(study, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(telling, "build", failing)
    connected.receive(*make_study("bad"), *make_study("good"))
    connected.settle()
    assert connected.study(study_uid("good"))["state"] == "reported"
    shown = connected.study(study_uid("bad"))
    assert shown["state"] == "analysed"
    assert "OSError" in shown["reason"]

    monkeypatch.setattr(telling, "build", report_step.build)
    connected.clock.go_on(seconds=30)
    connected.settle()
    assert connected.study(study_uid("bad"))["state"] == "reported"
    assert connected.study(study_uid("bad"))["reason"] is None


def test_what_comes_in_goes_before_night_work(connected: Site) -> None:
    connected.receive(*make_study("old", views=("PA",)))
    connected.settle()
    connected.receive(*make_study("new", views=("PA",)))
    connected.clock.go_on(seconds=5)
    connected.engine.model = model_identity("2.0")
    pipeline.reprocess_outdated(connected.parts, connected.engine.model)
    pipeline.complete_studies(connected.parts)
    seen: list[str] = []

    class Watched:
        def analyse(self, ready: list[ReadyStudy]) -> Iterator[object]:
            seen.extend(study.study_uid for study in ready)
            return connected.engine.analyse(ready)

    pipeline.analyse_studies(replace(connected.parts, engine=Watched))
    assert seen == [study_uid("new"), study_uid("old")]
