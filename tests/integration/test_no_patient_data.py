"""Logs, metrics and event details tell nothing of a patient, whatever goes wrong on the way."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from prometheus_client import generate_latest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import InstanceAvailabilityNotification, ModalityPerformedProcedureStep
from sqlalchemy import select

from dicom_io.errors import InvalidReport
from dicom_io.quiet import quietly
from dicom_io.wrap import Exposure, Patient
from tests.factories import TAKEN_AT, make_dx, radiograph, study_uid
from tests.fakes import FakePacs, Site, encoded, free_port, make_site
from tests.raw_sender import RawObject, send_raw
from worker import log, pipeline, reception, telling
from worker.db import schema
from worker.db.database import Database
from worker.receivers import receiver
from worker.settings import DicomSettings
from worker.standing import Standing
from worker.steps.store import IncomingObject

PATIENT = Patient(name="TEST^QUINZELLA", patient_id="TEST-77310452", birth_date="19530917", sex="F")
OTHER = replace(PATIENT, patient_id="TEST-77310453")
ACCESSION = "ACC-5519047"
UNSPEAKABLE = re.compile(r"QUINZELLA|77310452|77310453|19530917|1953-09-17|5519047|2\.25\.\d{6}")
"""What no line may hold. All objects of these tests have UIDs under 2.25, and so have our reports."""


def film(name: str, *, patient: Patient = PATIENT, seed: int = 0) -> Dataset:
    exposure = Exposure(study_uid=study_uid(name), taken_at=TAKEN_AT, accession_number=ACCESSION)
    ds = make_dx(radiograph(seed=seed), exposure=exposure, patient=patient)
    ds.StudyDescription = ds.SeriesDescription = ds.ImageComments = f"{patient.name} {patient.patient_id}"
    return ds


def raw(name: str, ds: Dataset, *, dataset: bytes | None = None, sop_instance_uid: str | None = None) -> RawObject:
    return RawObject(
        name=name,
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=sop_instance_uid or ds.SOPInstanceUID,
        transfer_syntax=ExplicitVRLittleEndian,
        dataset=encoded(ds) if dataset is None else dataset,
    )


@contextmanager
def receiving(site: Site) -> Iterator[int]:
    listener = receiver(site.parts, arrived=lambda: None)
    with listener as running:
        yield running.port


@pytest.fixture(params=["json", "console"])
def style(request: pytest.FixtureRequest) -> str:
    """Of log lines."""
    return str(request.param)


@pytest.fixture
def site(database: Database, tmp_path: Path, pacs: FakePacs) -> Site:
    destinations = (pacs.destination(), pacs.destination("asleep", port=free_port()))
    made = make_site(database, tmp_path / "var", destinations=destinations)
    settings = made.parts.settings.model_copy(update={"dicom": DicomSettings(port=0)})
    made.parts = replace(made.parts, settings=settings)
    made.parts.metrics.registry.register(Standing(settings, database, made.clock))
    return made


def told(site: Site, capfd: pytest.CaptureFixture[str]) -> str:
    """Every log line, and everything else that this process said, every event's words, and every figure."""
    captured = capfd.readouterr()
    with site.database.read() as connection:
        details = connection.execute(select(schema.events.c.kind, schema.events.c.detail)).all()
    assert details
    figures = generate_latest(site.parts.metrics.registry).decode()
    assert "cxr_studies" in figures
    return captured.out + captured.err + figures + "\n".join(f"{kind} {detail}" for kind, detail in details)


def assert_nobody_is_named(text: str) -> None:
    assert not [line for line in text.splitlines() if UNSPEAKABLE.search(line)]


def test_what_is_received_and_refused_is_told_without_its_patient(
    site: Site, style: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure(json_lines=style == "json")
    good, without_study, changed = film("good"), film("lost"), film("good")
    del without_study.StudyInstanceUID
    changed.ImageComments = f"{PATIENT.name} again"
    not_a_uid = film("odd")
    with quietly:
        not_a_uid.StudyInstanceUID = "1.2.QUINZELLA"
    with receiving(site) as port:
        statuses = send_raw(
            port,
            [
                raw("good", good),
                raw("other content", changed),
                raw("other patient", film("good", patient=OTHER, seed=1)),
                raw("garbage", good, dataset=b"QUINZELLA 77310452 " * 20),
                raw("cut", good, dataset=encoded(good)[:200]),
                raw("other instance", good, sop_instance_uid="1.2.3"),
                raw("no study", without_study),
                raw("odd study", not_a_uid),
            ],
        )
    refused = {name for name, status in statuses.items() if status}
    assert refused == {"garbage", "cut", "other instance", "no study", "odd study"}
    text = told(site, capfd)
    assert text.count("object.refused") == len(refused)
    assert_nobody_is_named(text)


def test_an_error_nobody_foresaw_is_told_by_its_name_and_place(
    site: Site, style: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.configure(json_lines=style == "json")

    def fail(_incoming: IncomingObject, _parts: pipeline.Parts) -> None:
        raise ValueError(f"invalid value '{PATIENT.name}' for {study_uid('good')}")

    with receiving(site) as port:
        assert send_raw(port, [raw("good", film("good"))]) == {"good": 0}
        monkeypatch.setattr(reception, "receive", fail)
        assert send_raw(port, [raw("good", film("better"))]) == {"good": 0x0110}
    text = told(site, capfd)
    assert "ValueError" in text
    assert "test_no_patient_data.py" in text
    assert_nobody_is_named(text)


def test_a_study_on_its_way_is_told_without_its_patient(
    site: Site, pacs: FakePacs, style: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.configure(json_lines=style == "json")
    ct = film("not analysed")
    with quietly:
        ct.Modality = PATIENT.name  # somebody filled in the wrong field
    undecodable = film("undecodable")
    undecodable.Rows = 7
    site.receive(film("good"), film("breaks"), film("silent"), ct, undecodable)
    site.receive(film("two patients"), film("two patients", patient=OTHER, seed=1))
    site.engine.breaks_on[study_uid("breaks")] = RuntimeError(f"{PATIENT.name} {study_uid('breaks')}")
    site.engine.silent_on.add(study_uid("silent"))
    site.settle()
    for _ in range(12):  # every attempt of what cannot be analysed
        site.clock.go_on(hours=1)
        site.settle()

    refusal = Dataset()
    refusal.Status, refusal.ErrorComment = 0xC123, f"{PATIENT.name} {PATIENT.patient_id} unknown"
    pacs.status = refusal  # type: ignore[assignment]  # pynetdicom takes a data set for a status with more to it
    for _ in range(12):
        site.deliver()
        site.clock.go_on(hours=1)
    pacs.status = 0x0000
    (report,) = list((site.parts.data_dir / "reports").rglob("*.dcm"))[:1]
    report.write_bytes(b"QUINZELLA")
    site.receive(film("told"))
    site.settle()
    site.deliver()

    def refuse(*_: object, **__: object) -> None:
        raise ValueError(f"{PATIENT.name} cannot be written")

    def refuse_for_good(*_: object, **__: object) -> None:
        raise InvalidReport("A source image has no usable StudyID.")

    for number, failing in enumerate((refuse, refuse_for_good)):
        monkeypatch.setattr(telling, "keep", failing)
        site.receive(film(f"unreported {number}"))
        site.settle()
    assert_nobody_is_named(told(site, capfd))


def test_what_others_tell_of_a_study_and_noise_are_told_without_its_patient(
    site: Site, style: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure(json_lines=style == "json")
    step, notice = Dataset(), Dataset()
    step.PatientName, step.PatientID, step.PerformedProcedureStepStatus = PATIENT.name, PATIENT.patient_id, "IN PROGRESS"
    scheduled = Dataset()
    scheduled.StudyInstanceUID, scheduled.AccessionNumber = study_uid("good"), ACCESSION
    step.ScheduledStepAttributesSequence = [scheduled]
    notice.PatientID, notice.ReferencedSeriesSequence = PATIENT.patient_id, []
    with quietly:
        notice.StudyInstanceUID = f"1.2.{PATIENT.name}"
    modality = AE("MODALITY")
    modality.add_requested_context(ModalityPerformedProcedureStep)
    modality.add_requested_context(InstanceAvailabilityNotification)
    with receiving(site) as port:
        assoc = modality.associate("127.0.0.1", port, ae_title="CXRWORKER")
        assert assoc.send_n_create(step, ModalityPerformedProcedureStep, study_uid("step"))[0].Status == 0
        assoc.send_n_create(notice, InstanceAvailabilityNotification, study_uid("notice"))
        del notice.StudyInstanceUID
        assert assoc.send_n_create(notice, InstanceAvailabilityNotification, study_uid("notice"))[0].Status != 0
        assoc.release()
        with socket.create_connection(("127.0.0.1", port)) as noise:
            noise.sendall(f"{PATIENT.name} {PATIENT.patient_id} ".encode() * 30)
            with suppress(ConnectionError):
                while noise.recv(4096):
                    pass
        assert send_raw(port, [raw("good", film("good"))]) == {"good": 0}
    text = told(site, capfd)
    assert "step.noted" in text
    assert_nobody_is_named(text)


def test_what_a_thread_dies_of_is_told_without_its_words(
    style: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.configure(json_lines=style == "json")
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # put back afterwards
    monkeypatch.setattr("sys.excepthook", None)
    log.hide_words_of_errors()

    def die() -> None:
        raise RuntimeError(f"{PATIENT.name} {PATIENT.patient_id}")

    thread = threading.Thread(target=die)
    thread.start()
    thread.join()
    text = capfd.readouterr().err
    assert "thread.died" in text
    assert "RuntimeError" in text
    assert_nobody_is_named(text)


def test_a_field_that_is_not_allowed_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure(json_lines=True)
    structlog.get_logger().info("study.complete", study_id=7, patient_id=PATIENT.patient_id, study_uid=study_uid())
    (line,) = capfd.readouterr().err.splitlines()
    assert set(json.loads(line)) == {"event", "level", "timestamp", "study_id"}
