from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage

from dicom_io.eligibility import ReasonCode
from dicom_io.errors import InvalidReport
from dicom_io.not_analysed import build_not_analysed_report
from dicom_io.values import ObjectReference, RefusedImage, SeriesUID, SOPClassUID, SOPInstanceUID
from dicom_io.wording import Language, wording_in
from tests.studies import STUDY_UID, encoded, radiograph, refusal_of, reread, tree

EXPECTED = Path(__file__).parent / "expected"
OF_THE_WORKER = {"repeated", "replaced", "undecodable", "not_dicom"}


def report_on(*paths: Path, **changes: Any) -> Dataset:
    return reread(build_not_analysed_report(refusal_of(*paths, **changes)))


def evidence(ds: Dataset) -> list[str]:
    return [
        item.ReferencedSOPInstanceUID
        for series in ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


@pytest.mark.parametrize("language", Language)
def test_the_tree_is_the_recorded_one(language: Language, tmp_path: Path) -> None:
    ds = report_on(*(radiograph(tmp_path, number=number) for number in (1, 2, 3)), language=language)
    assert tree(ds) == (EXPECTED / f"not_analysed_{language}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("language", Language)
def test_every_reason_has_words(language: Language) -> None:
    reasons = wording_in(language).reasons
    assert set(reasons) == {*ReasonCode, *OF_THE_WORKER} - {ReasonCode.ELIGIBLE}
    assert len(set(reasons.values())) == len(reasons)
    assert all(reasons.values())


def test_neither_a_number_nor_a_label_is_told(tmp_path: Path) -> None:
    text = "\n".join(tree(report_on(radiograph(tmp_path))))
    assert "%" not in text
    for language in Language:
        assert not any(condition in text for condition in wording_in(language).conditions.values())
    assert "NUM" not in text


def test_it_says_what_it_is_and_that_it_is_not_for_diagnosis(tmp_path: Path) -> None:
    ds = report_on(radiograph(tmp_path))
    assert ds.SOPClassUID == BasicTextSRStorage
    assert (ds.SeriesNumber, ds.SeriesDescription) == (9009, "AI: not analysed (research use only)")
    assert (ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag) == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert wording_in(Language.ENGLISH).disclaimer in "\n".join(tree(ds))


def test_an_image_sent_twice_is_told_twice_and_referred_to_once(tmp_path: Path) -> None:
    path = radiograph(tmp_path)
    repeated = RefusedImage(path=path, code="repeated", reason="The same image as before.")
    ds = report_on(images=(*refusal_of(path).images, repeated))
    assert evidence(ds) == [f"{STUDY_UID}.1.1"]
    assert "Image 2 not analysed: it repeats another image." in "\n".join(tree(ds))


def test_a_file_that_cannot_be_read_is_told_of_and_not_referred_to(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"no DICOM")
    refused = RefusedImage(path=broken, code="not_dicom", reason="The file cannot be parsed.")
    ds = report_on(images=(refused, *refusal_of(radiograph(tmp_path)).images))
    assert evidence(ds) == [f"{STUDY_UID}.1.1"]
    assert "Image 1 not analysed: it cannot be read as DICOM." in "\n".join(tree(ds))
    with pytest.raises(InvalidReport):
        report_on(images=(refused,))


def test_what_is_no_image_is_referred_to_as_another_object(tmp_path: Path) -> None:
    ds = report_on(radiograph(tmp_path, Rows=None, Columns=None), radiograph(tmp_path, number=2))
    references = [line.split()[2] for line in tree(ds) if "INFERRED FROM" in line]
    assert references == ["COMPOSITE", "IMAGE"]


def test_the_report_before_is_named(tmp_path: Path) -> None:
    predecessor = ObjectReference(
        sop_class_uid=SOPClassUID(BasicTextSRStorage),
        sop_instance_uid=SOPInstanceUID("1.2.3.4"),
        series_uid=SeriesUID("1.2.3"),
    )
    [study] = report_on(radiograph(tmp_path), predecessor=predecessor).PredecessorDocumentsSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"


def test_equal_refusals_give_equal_bytes(tmp_path: Path) -> None:
    refused = refusal_of(radiograph(tmp_path))
    assert encoded(build_not_analysed_report(refused)) == encoded(build_not_analysed_report(refused))
    other = build_not_analysed_report(replace(refused, result_key="another"))
    assert other.SOPInstanceUID != build_not_analysed_report(refused).SOPInstanceUID


def test_no_image_two_patients_or_no_time_zone_is_refused(tmp_path: Path) -> None:
    path = radiograph(tmp_path)
    for refused in (
        refusal_of(),
        refusal_of(path, radiograph(tmp_path, number=2, PatientID="P-2")),
        refusal_of(path, decided_at=datetime(2026, 1, 1)),  # noqa: DTZ001  that is the mistake
    ):
        with pytest.raises(InvalidReport):
            build_not_analysed_report(refused)
