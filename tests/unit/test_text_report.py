from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage

from dicom_io.codes import Assessment, Heading
from dicom_io.errors import InvalidReport
from dicom_io.report import build_structured_report
from dicom_io.standing import Correction
from dicom_io.text_report import build_text_report
from dicom_io.uids import DEVICE_UID
from dicom_io.values import ObjectReference, SeriesUID, SOPClassUID, SOPInstanceUID
from dicom_io.wording import Language, wording_in
from tests.studies import ANALYSED_AT, STUDY_UID, encoded, findings_on, radiograph, reread, tree

EXPECTED = Path(__file__).parent / "expected"


def report_on(*paths: Path, **changes: Any) -> Dataset:
    return reread(build_text_report(findings_on(*paths, **changes)))


def said(ds: Dataset) -> str:
    return "\n".join(tree(ds))


@pytest.mark.parametrize("language", Language)
def test_the_tree_is_the_recorded_one(language: Language, tmp_path: Path) -> None:
    ds = report_on(radiograph(tmp_path), radiograph(tmp_path, number=2), language=language)
    assert tree(ds) == (EXPECTED / f"text_report_{language}.txt").read_text(encoding="utf-8").splitlines()


def test_highdicom_reads_the_tree(tmp_path: Path) -> None:
    items = sr.ContentSequence.from_sequence(report_on(radiograph(tmp_path)).ContentSequence)
    assert [item.name.meaning for item in items[-3:]] == ["Impressions", "Findings", "Current Procedure Descriptions"]
    [finding] = items[-2].ContentSequence
    assert " ".join(finding.value.split()).startswith("Image 1. COVID-19: present, 73.1 % (threshold 41.0 %).")
    [image] = finding.ContentSequence
    assert image.referenced_sop_instance_uid == f"{STUDY_UID}.1.1"


def test_it_is_a_preliminary_basic_text_report_in_its_own_series_by_a_device(tmp_path: Path) -> None:
    path = radiograph(tmp_path)
    ds, other = report_on(path), build_structured_report(findings_on(path))
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == BasicTextSRStorage
    assert (ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag) == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert (ds.SeriesNumber, ds.Modality, ds.DeviceUID) == (9003, "SR", DEVICE_UID)
    assert ds.SeriesInstanceUID != other.SeriesInstanceUID
    assert ds.SOPInstanceUID != other.SOPInstanceUID
    assert ds.CurrentRequestedProcedureEvidenceSequence == other.CurrentRequestedProcedureEvidenceSequence


def test_the_order_and_the_report_before_are_named(tmp_path: Path) -> None:
    request = Dataset()
    request.RequestedProcedureID = "RP7"
    predecessor = ObjectReference(
        sop_class_uid=SOPClassUID(BasicTextSRStorage),
        sop_instance_uid=SOPInstanceUID("1.2.3.4"),
        series_uid=SeriesUID("1.2.3"),
    )
    ds = report_on(radiograph(tmp_path, RequestAttributesSequence=[request]), predecessor=predecessor)
    assert ds.ReferencedRequestSequence[0].RequestedProcedureID == "RP7"
    [series] = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"


def test_what_a_reader_must_know_is_in_the_text(tmp_path: Path) -> None:
    words = wording_in(Language.ENGLISH)
    text = said(report_on(radiograph(tmp_path), impression="Something else.", version="9.9"))
    for part in (words.disclaimer, words.not_ruled_out, "Something else.", "lenet5 9.9", "weights sha256 3f00"):
        assert part in text
    assert "2026-03-04 05:06 UTC+01:00" in text
    assert "2026-03-03 22:36 UTC-05:30" in said(report_on(radiograph(tmp_path, TimezoneOffsetFromUTC="-0530")))


def test_of_an_image_that_the_classifier_is_not_sure_of_nothing_is_absent(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path), assessment=Assessment.UNDETERMINED)
    unsure = replace(findings, images=(replace(findings.images[0], undetermined=True),))
    text = said(build_text_report(unsure))
    assert "absent" not in text
    assert "COVID-19: present" in text
    assert "Pneumonia: undetermined, 16.9 % (threshold 35.0 %)" in text


def test_a_class_without_a_threshold_is_told_without_one(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path))
    [image] = findings.images
    bare = replace(image, findings=tuple(replace(finding, threshold=None) for finding in image.findings))
    assert "COVID-19: present, 73.1 %. Normal: absent, 10.0 %." in said(build_text_report(replace(findings, images=(bare,))))


def test_no_identity_of_the_patient_is_in_the_text(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = radiograph(tmp_path / "other", PatientName="Other^Person", PatientID="P-2", AccessionNumber="B")
    assert tree(report_on(other)) == tree(report_on(radiograph(tmp_path)))


def test_equal_findings_give_equal_bytes_and_another_language_another_object(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path), analysed_at=ANALYSED_AT)
    spanish = build_text_report(replace(findings, language=Language.SPANISH))
    assert encoded(build_text_report(findings)) == encoded(build_text_report(findings))
    assert spanish.SOPInstanceUID != build_text_report(findings).SOPInstanceUID


def test_images_of_two_patients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidReport):
        report_on(radiograph(tmp_path), radiograph(tmp_path, number=2, PatientID="P-2"))


@pytest.mark.parametrize("language", Language)
def test_every_heading_has_words_that_fit(language: Language) -> None:
    headings = wording_in(language).headings
    assert set(headings) == set(Heading)
    assert all(0 < len(heading.encode()) <= 64 for heading in headings.values())


CORRECTED = {
    Language.ENGLISH: "Image 2 was analysed with bright and dark exchanged, as its header names the wrong polarity and "
    "turned by 90 degrees counter-clockwise, to stand upright.",
    Language.SPANISH: "Imagen 2 se analizó con claros y oscuros invertidos, pues su cabecera indica una polaridad errónea y "
    "girada 90 grados en sentido antihorario, para quedar derecha.",
}


@pytest.mark.parametrize("build", [build_text_report, build_structured_report])
@pytest.mark.parametrize("language", Language)
def test_a_reader_is_told_that_an_image_was_put_right(language: Language, build: Any, tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path), radiograph(tmp_path, number=2), language=language)
    first, second = findings.images
    second = replace(second, correction=Correction(inverted=True, quarter_turns=1))
    before, after = (said(reread(build(replace(findings, images=images)))) for images in (findings.images, (first, second)))
    assert CORRECTED[language] in after
    assert CORRECTED[language][:20] not in before
