"""DCMTK's storescu sends, `cxr-worker serve` works, Orthanc keeps: the thing itself, with nothing replaced."""

import json
import subprocess
from io import BytesIO
from pathlib import Path

import highdicom
import pydicom
import pytest

from tests.acceptance.killed_after import STEPS
from tests.factories import make_dx, make_study, study_uid, write
from tests.postgres import Cluster
from tests.requirements import need
from tests.servers import Orthanc, Worker, destination, free_port, storescu, wait_for, worker

KILLED_AFTER = Path(__file__).with_name("killed_after.py")


def write_study(name: str, folder: Path) -> list[Path]:
    return [write(ds, folder / f"{name}-{number}.dcm") for number, ds in enumerate(make_study(name))]


def wait_until_delivered(worker: Worker, uid: str) -> dict:
    def delivered() -> dict | None:
        study = worker.study(uid)
        return study if study and study["state"] in {"delivered", "failed", "not_analysed"} else None

    study = wait_for(delivered, "the study comes to its end", seconds=60)
    assert study["state"] == "delivered", study
    return study


def test_a_radiograph_sent_with_storescu_comes_back_to_orthanc_as_a_valid_structured_report(
    a_worker: Worker, pacs: Orthanc, tmp_path: Path
) -> None:
    dciodvfy = need("dciodvfy")
    a_worker.start()
    files = write_study("whole path", tmp_path)
    sent = pydicom.dcmread(files[0])

    assert storescu(a_worker.port, *files).returncode == 0
    study = wait_until_delivered(a_worker, sent.StudyInstanceUID)

    (in_orthanc,) = pacs.instances_of(sent.StudyInstanceUID, "SR")
    encoded = pacs.get(f"/instances/{in_orthanc}/file")
    (tmp_path / "sr.dcm").write_bytes(encoded)
    checked = subprocess.run([dciodvfy, str(tmp_path / "sr.dcm")], capture_output=True, text=True, check=False)
    assert "Error" not in checked.stdout + checked.stderr, checked.stderr

    report = highdicom.sr.srread(BytesIO(encoded))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber"):
        assert str(report[keyword].value) == str(sent[keyword].value), keyword
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    groups = report.content.get_image_measurement_groups()
    (prediction,) = study["images"][0]["predictions"]
    assert [round(group.get_measurements()[0].value / 100, 4) for group in groups] == [
        round(p, 4) for _, p in sorted(prediction["probabilities"].items())
    ]
    assert {group.source_images[0].referenced_sop_instance_uid for group in groups} == {sent.SOPInstanceUID}

    assert len(pacs.instances_of(sent.StudyInstanceUID, "OT")) == 1
    lateral = study["images"][1]
    assert (lateral["eligible"], lateral["reason_code"], lateral["predictions"]) == (False, "not_frontal", [])
    assert {delivery["state"] for delivery in study["deliveries"]} == {"delivered"}


def test_the_same_study_sent_ten_times_is_answered_with_success_and_makes_nothing_new(
    a_worker: Worker, pacs: Orthanc, tmp_path: Path
) -> None:
    a_worker.start()
    files = write_study("ten times", tmp_path)
    storescu(a_worker.port, *files)
    first = wait_until_delivered(a_worker, study_uid("ten times"))

    for _ in range(9):
        assert storescu(a_worker.port, *files).returncode == 0

    assert a_worker.study(study_uid("ten times")) == first
    assert len(list((a_worker.folder / "var" / "received").rglob("*.dcm"))) == len(files)
    assert json.loads(a_worker.command("studies", "show", study_uid("ten times"), "--json")) == first
    assert len(pacs.instances_of(study_uid("ten times"), "SR")) == 1


@pytest.mark.parametrize("step", STEPS)
def test_nothing_is_lost_and_one_report_made_when_the_process_is_killed_after(
    step: str, a_worker: Worker, pacs: Orthanc, tmp_path: Path
) -> None:
    files = write_study(f"killed after {step}", tmp_path)
    uid = study_uid(f"killed after {step}")
    a_worker.start(program=(str(KILLED_AFTER), step))
    process = a_worker.process
    assert process is not None

    sent = storescu(a_worker.port, *files)
    assert process.wait(60) == -9
    a_worker.start()
    if sent.returncode != 0:  # the sender was not told that it arrived, and sends again, as senders do
        assert storescu(a_worker.port, *files).returncode == 0
    study = wait_until_delivered(a_worker, uid)

    assert len(study["images"]) == len(files)
    assert len(pacs.instances_of(uid, "SR")) == 1
    assert len(pacs.instances_of(uid, "OT")) == 1
    assert [report["kind"] for report in study["reports"]] == ["sr", "capture"]
    assert a_worker.stop() == 0


def test_on_postgresql_the_path_is_the_same_and_a_killed_worker_reports_once(
    pacs: Orthanc, postgres: Cluster, tmp_path: Path
) -> None:
    need("storescu")
    name = postgres.create()
    files, uid = write_study("on postgresql", tmp_path), study_uid("on postgresql")
    with worker(tmp_path, f"[study]\nquiet_seconds = 0.5\n{destination(pacs)}", database_url=postgres.url(name)) as a_worker:
        assert "db upgrade" in a_worker.complaint("serve", code=1)
        a_worker.command("db", "upgrade")
        a_worker.start(program=(str(KILLED_AFTER), "deliver"))
        assert a_worker.process is not None
        assert storescu(a_worker.port, *files).returncode == 0
        assert a_worker.process.wait(60) == -9
        a_worker.start()
        study = wait_until_delivered(a_worker, uid)
        assert a_worker.stop() == 0

    assert len(study["images"]) == len(files)
    assert [len(pacs.instances_of(uid, modality)) for modality in ("SR", "OT")] == [1, 1]
    postgres.drop(name)


def test_a_late_image_makes_a_report_that_supersedes_the_first(a_worker: Worker, pacs: Orthanc, tmp_path: Path) -> None:
    a_worker.start()
    first, second = (write(ds, tmp_path / f"{n}.dcm") for n, ds in enumerate(make_study("late", views=("PA", "AP"))))
    storescu(a_worker.port, first)
    wait_until_delivered(a_worker, study_uid("late"))

    storescu(a_worker.port, second)
    in_pacs = wait_for(lambda: (found := pacs.instances_of(study_uid("late"), "SR"))[1:] and found, "a second report")

    reports = [pydicom.dcmread(BytesIO(pacs.get(f"/instances/{each}/file"))) for each in in_pacs]
    newer = max(reports, key=lambda ds: "PredecessorDocumentsSequence" in ds)
    (older,) = [ds for ds in reports if ds is not newer]
    named = newer.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == older.SOPInstanceUID
    assert wait_until_delivered(a_worker, study_uid("late"))["generation"] == 2


def test_a_patient_in_another_character_set_comes_back_with_the_same_name(
    a_worker: Worker, pacs: Orthanc, tmp_path: Path
) -> None:
    ds = make_dx()
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    ds.StudyInstanceUID = study_uid("japanese")
    a_worker.start()
    storescu(a_worker.port, write(ds, tmp_path / "japanese.dcm"))
    wait_until_delivered(a_worker, study_uid("japanese"))

    (found,) = pacs.instances_of(study_uid("japanese"), "SR")
    report = pydicom.dcmread(BytesIO(pacs.get(f"/instances/{found}/file")))
    assert report.PatientName == ds.PatientName
    assert report.SpecificCharacterSet == "ISO_IR 192"


def test_a_report_waits_for_a_pacs_that_is_away_and_says_so(tmp_path: Path) -> None:
    need("storescu")
    nobody = Orthanc(dicom_port=free_port(), http_port=0)
    with worker(tmp_path, f"[study]\nquiet_seconds = 0.2\n{destination(nobody)}") as a_worker:
        a_worker.start()
        storescu(a_worker.port, write(make_dx(), tmp_path / "one.dcm"))

        def tried() -> list | None:
            found = json.loads(a_worker.command("deliveries", "list", "--json"))
            return [delivery for delivery in found if delivery["attempts"]]

        (delivery, *_) = wait_for(tried, "a failed attempt")
        assert delivery["state"] == "pending"
        assert "does not answer" in delivery["last_error"]
        assert delivery["next_attempt_at"] is not None
