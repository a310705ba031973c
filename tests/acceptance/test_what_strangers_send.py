"""Every real file in one go, and input that nobody should send: stored or refused, and the worker runs on."""

import json
import struct
import subprocess
from hashlib import sha256
from pathlib import Path

import psutil
import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from tests.factories import dicom_folder, make_dx, study_uid
from tests.raw_sender import RawObject, raw_object, send_raw
from tests.requirements import need
from tests.servers import Orthanc, Worker, storescu, wait_for

ANALYSED = {
    "chest_fuji_mono1_10_nopreamble.dcm",
    "chest_nih_dx_nofinding.dcm",
    "chest_philips_rg1_j2ki.dcm",
    "chest_rsna_pa_jpeg.dcm",
    "chest_rsna_pa_jpeg_fakemono1.dcm",
}
WITHOUT_UIDS = {"b_dcm4che_no_preamble.dcm", "b_gh340_acrnema.dcm", "b_no_meta.dcm"}
ENDS = {"delivered", "not_analysed", "failed"}


def all_at_their_end(worker: Worker) -> list[dict] | None:
    studies = worker.studies()
    return studies if all(study["state"] in ENDS for study in studies) else None


def stored_bytes(worker: Worker, path: str) -> bytes:
    content = (worker.folder / "var" / path).read_bytes()
    meta_length = struct.unpack("<I", content[140:144])[0]
    return content[144 + meta_length :]


def test_every_real_file_in_one_go_is_kept_byte_for_byte_and_judged(a_worker: Worker, pacs: Orthanc) -> None:
    objects = [raw_object(path) for path in sorted(dicom_folder().glob("*.dcm"))]
    assert len(objects) == 36
    a_worker.start()

    statuses = send_raw(a_worker.port, objects)

    refused = {name for name, status in statuses.items() if status != 0x0000}
    assert refused >= WITHOUT_UIDS
    assert {statuses[name] for name in refused} <= {0xA900, 0xC000}, {name: statuses[name] for name in refused}
    studies = wait_for(lambda: all_at_their_end(a_worker), "every study comes to its end", seconds=120)

    kept = {image["path"]: image | {"study": study} for study in studies for image in study["images"]}
    for each in objects:
        if each.name in refused:
            continue
        path = next(path for path in kept if sha256(each.dataset).hexdigest() in path)
        assert stored_bytes(a_worker, path) == each.dataset, each.name
        image = kept[path]
        if each.name in ANALYSED:
            assert image["predictions"] or image["reason_code"] == "replaced", each.name
        else:
            assert image["predictions"] == [], each.name
            assert image["reason"], each.name
            assert image["reason_code"], each.name
    analysed = [image for image in kept.values() if image["predictions"]]
    assert len(analysed) == 4, "two of the five share one SOP Instance UID, and the newer content counts"
    assert [image["conflict"] for image in kept.values()].count(True) == 1
    need("echoscu")
    assert subprocess.run(["echoscu", "-aec", "CXRWORKER", "127.0.0.1", str(a_worker.port)], check=False).returncode == 0
    for study in studies:
        if study["state"] == "delivered":
            assert len(pacs.instances_of(study["study_uid"], "SR")) == 1


def encoded(ds: pydicom.Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    return buffer.getvalue()


def described(
    name: str, ds: pydicom.Dataset, *, syntax: str = ExplicitVRLittleEndian, dataset: bytes | None = None
) -> RawObject:
    return RawObject(
        name=name,
        sop_class_uid=str(ds.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.1")),
        sop_instance_uid=str(ds.get("SOPInstanceUID", "2.25.1")),
        transfer_syntax=syntax,
        dataset=encoded(ds) if dataset is None else dataset,
    )


def dx(name: str) -> pydicom.Dataset:
    ds = make_dx()
    ds.StudyInstanceUID = study_uid(name)
    ds.SOPInstanceUID = f"{study_uid(name)}.1"[:64]
    return ds


def bad_inputs() -> list[RawObject]:
    truncated = dx("truncated")
    no_pixels = dx("no pixels")
    del no_pixels.PixelData
    huge = dx("huge")
    huge.Rows = huge.Columns = 65535
    huge.PixelData = bytes(512)
    broken_stream = dx("broken stream")
    broken_stream.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7" + bytes(300)])
    broken_stream["PixelData"].VR = "OB"
    broken_stream["PixelData"].is_undefined_length = True
    unknown_syntax = dx("unknown syntax")
    no_study = dx("no study")
    del no_study.StudyInstanceUID
    other_instance = dx("other instance")
    return [
        described("truncated", truncated, dataset=encoded(truncated)[:-4000]),
        described("no pixels", no_pixels),
        described("huge", huge),
        described("broken stream", broken_stream, syntax=JPEGLSLossless),
        described("unknown syntax", unknown_syntax, syntax="1.2.3.4.5.6.7"),
        described("no study", no_study),
        RawObject(
            name="other instance",
            sop_class_uid=str(other_instance.SOPClassUID),
            sop_instance_uid="2.25.99",
            transfer_syntax=ExplicitVRLittleEndian,
            dataset=encoded(other_instance),
        ),
        RawObject(
            name="nonsense",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
            sop_instance_uid="2.25.98",
            transfer_syntax=ExplicitVRLittleEndian,
            dataset=bytes(range(256)) * 40,
        ),
        RawObject(
            name="two bytes",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
            sop_instance_uid="2.25.97",
            transfer_syntax=ExplicitVRLittleEndian,
            dataset=b"\x08\x00",
        ),
    ]


def test_bad_input_is_stored_or_refused_with_the_right_status_and_never_stops_the_worker(
    a_worker: Worker, tmp_path: Path
) -> None:
    a_worker.start()
    assert a_worker.process is not None
    before = psutil.Process(a_worker.process.pid).memory_info().rss

    statuses = send_raw(a_worker.port, bad_inputs())

    assert statuses["no study"] == 0xA900
    assert statuses["other instance"] == 0xA900
    assert statuses["two bytes"] in {0xA900, 0xC000}
    assert statuses["nonsense"] in {0xA900, 0xC000}
    kept = {name for name, status in statuses.items() if status == 0x0000}
    assert {"truncated", "no pixels", "huge", "broken stream"} <= kept
    studies = {
        study["study_uid"]: study for study in wait_for(lambda: all_at_their_end(a_worker), "every study ends", seconds=60)
    }
    for name in ("truncated", "no pixels", "huge", "broken stream"):
        study = studies[study_uid(name)]
        assert study["state"] in {"failed", "not_analysed"}, study
        assert study["reason"], study
        assert study["images"][0]["predictions"] == []
    assert psutil.Process(a_worker.process.pid).memory_info().rss - before < 500 * 1024**2

    good = dx("good after all")
    good.file_meta.MediaStorageSOPInstanceUID = good.SOPInstanceUID
    good.save_as(tmp_path / "good.dcm", enforce_file_format=True)
    assert storescu(a_worker.port, tmp_path / "good.dcm").returncode == 0
    wait_for(lambda: (s := a_worker.study(good.StudyInstanceUID)) and s["state"] == "delivered", "a good study is delivered")
    refusals = [event for event in a_worker.events() if event["event"] == "object.refused"]
    assert len(refusals) == len(statuses) - len(kept) - list(statuses.values()).count(None)
    assert "Traceback" not in a_worker.log.read_text()


def test_one_bad_image_does_not_spoil_its_study(a_worker: Worker) -> None:
    good, bad = dx("one bad"), dx("one bad")
    bad.SOPInstanceUID = "2.25.7001"
    bad.Rows = 65535
    a_worker.start()

    send_raw(a_worker.port, [described("good", good), described("bad", bad)])
    study = wait_for(
        lambda: (s := a_worker.study(study_uid("one bad"))) and s["state"] in ENDS and s, "the study ends", seconds=60
    )

    assert study["state"] == "delivered"
    outcome = {image["sop_instance_uid"]: bool(image["predictions"]) for image in study["images"]}
    assert outcome == {str(good.SOPInstanceUID): True, "2.25.7001": False}


def test_no_patient_data_is_in_the_log(a_worker: Worker) -> None:
    ds = dx("secret")
    ds.PatientName, ds.PatientID, ds.AccessionNumber, ds.PatientBirthDate = "Secretname^A", "SECRETID", "SECRETACC", "19440321"
    a_worker.start()
    send_raw(a_worker.port, [described("secret", ds)])
    wait_for(lambda: (s := a_worker.study(study_uid("secret"))) and s["state"] == "delivered", "the study is delivered")
    a_worker.stop()

    log = a_worker.log.read_text().lower()
    for secret in ("secretname", "secretid", "secretacc", "19440321", str(ds.StudyInstanceUID)):
        assert secret not in log
    assert json.loads(log.splitlines()[-1])["event"] == "stopping"
