import logging
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from struct import pack
from typing import Any

import pydicom
import pytest
from highdicom import sr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, SecondaryCaptureImageStorage

from dicom_io.codes import Condition, Presence
from dicom_io.errors import InvalidReport
from dicom_io.report import build_structured_report
from dicom_io.uids import DEVICE_UID, SOFTWARE_VERSION
from dicom_io.values import ClassFinding, ObjectReference, SeriesUID, SOPClassUID, SOPInstanceUID
from tests.studies import ANALYSED_AT, NAMES, STUDY_UID, encoded, findings_on, radiograph, reread, tree, with_bytes

EXPECTED = Path(__file__).parent / "expected"

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def report_on(*paths: Path, **changes: Any) -> Dataset:
    return reread(build_structured_report(findings_on(*paths, **changes)))


def test_the_tree_is_the_recorded_one(tmp_path: Path) -> None:
    ds = report_on(radiograph(tmp_path), radiograph(tmp_path, number=2, ViewPosition="AP", ImagerPixelSpacing=None))
    assert tree(ds) == (EXPECTED / "report_tree.txt").read_text(encoding="utf-8").splitlines()


def test_highdicom_reads_back_what_was_found(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path), radiograph(tmp_path, number=2))
    document = sr.srread(BytesIO(encoded(build_structured_report(findings))))
    groups = document.content.get_image_measurement_groups()
    expected = [(image, finding) for image in findings.images for finding in image.findings]
    assert len(groups) == len(expected) == 6
    for group, (image, finding) in zip(groups, expected, strict=True):
        [certainty] = group.get_measurements(name=codes.DCM.CertaintyOfFinding)
        assert certainty.value == pytest.approx(finding.probability * 100, abs=0.005)
        assert certainty.unit == codes.UCUM.Percent
        assert group.finding_type == finding.condition.value
        assert [site.value.value for site in group.finding_sites] == ["39607008"]
        [evaluation] = group.get_qualitative_evaluations(name=finding.condition.value)
        assert evaluation.value == (Presence.PRESENT if finding.present else Presence.ABSENT).value
        [source] = group.source_images
        assert source.referenced_sop_instance_uid == pydicom.dcmread(image.path).SOPInstanceUID
    assert len({group.tracking_uid for group in groups}) == 6
    assert len({group.tracking_identifier for group in groups}) == 6
    [observer] = document.content.get_observer_contexts(observer_type=codes.DCM.Device)
    assert observer.observer_identifying_attributes.uid == DEVICE_UID == document.DeviceUID


def test_of_an_image_that_the_classifier_is_not_sure_of_only_what_is_flagged_is_said(tmp_path: Path) -> None:
    sure = findings_on(radiograph(tmp_path), radiograph(tmp_path, number=2))
    findings = replace(sure, images=tuple(replace(image, undetermined=True) for image in sure.images))
    groups = sr.srread(BytesIO(encoded(build_structured_report(findings)))).content.get_image_measurement_groups()
    said = [group.get_qualitative_evaluations(name=group.finding_type)[0].value.meaning for group in groups]
    assert said == ["Present", *["Undetermined"] * 5]
    assert [group.get_measurements()[0].value for group in groups] == [
        pytest.approx(finding.probability * 100) for image in sure.images for finding in image.findings
    ]


def test_no_image_means_no_findings_to_report(tmp_path: Path) -> None:
    with pytest.raises(InvalidReport):
        findings_on()
    findings = findings_on(radiograph(tmp_path))
    for broken in (
        {"images": (replace(findings.images[0], findings=()),)},
        {"impression": ""},
        {"analysed_at": datetime(2026, 1, 1)},  # noqa: DTZ001  that is the mistake
    ):
        with pytest.raises(InvalidReport):
            replace(findings, **broken)


@pytest.mark.parametrize("probability", [-0.01, 1.01, float("nan")])
def test_what_is_no_probability_is_refused(probability: float) -> None:
    with pytest.raises(InvalidReport):
        ClassFinding(condition=Condition.NORMAL, probability=probability, present=False)
    with pytest.raises(InvalidReport):
        ClassFinding(condition=Condition.NORMAL, probability=0.5, present=False, threshold=probability)


@pytest.mark.parametrize("language", NAMES)
def test_a_name_in_any_character_set_is_the_same_name_in_unicode(language: str, tmp_path: Path) -> None:
    terms, name = NAMES[language]
    doctor = name.replace("^", "^Dr ", 1)
    ds = report_on(radiograph(tmp_path, SpecificCharacterSet=terms, PatientName=name, ReferringPhysicianName=doctor))
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert str(ds.PatientName) == name
    assert str(ds.ReferringPhysicianName) == doctor


@pytest.mark.parametrize(("terms", "written"), [("ISO_IR 100", "latin-1"), ("ISO_IR 192", "utf-8")])
def test_a_name_without_a_character_set_is_read_as_utf_8_or_else_latin_1(terms: str, written: str, tmp_path: Path) -> None:
    path = radiograph(tmp_path, SpecificCharacterSet=terms, PatientName="Müller^Jérôme")
    assert "Müller".encode(written) in path.read_bytes()
    ds = report_on(with_bytes(path, terms.encode(), b" " * len(terms)))
    assert str(ds.PatientName) == "Müller^Jérôme"


@pytest.mark.parametrize("terms", [b"ISO_IR 192", b"hex       ", b"ISO_IR_100"])
def test_a_name_that_its_character_set_cannot_decode_is_read_as_latin_1(terms: bytes, tmp_path: Path) -> None:
    path = radiograph(tmp_path, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jérôme")
    ds = report_on(with_bytes(path, b"ISO_IR 100", terms))
    assert str(ds.PatientName) == "Müller^Jérôme"


def test_patient_and_study_are_those_of_the_image(tmp_path: Path) -> None:
    path = radiograph(tmp_path)
    source, ds = pydicom.dcmread(path), report_on(path)
    for keyword in (*TYPE_2, "StudyInstanceUID", "IssuerOfPatientID", "StudyDescription"):
        assert ds[keyword].value == source[keyword].value, keyword


def test_what_the_image_does_not_say_is_empty(tmp_path: Path) -> None:
    ds = report_on(radiograph(tmp_path, **dict.fromkeys([*TYPE_2, "IssuerOfPatientID", "StudyDescription"])))
    assert all(not ds[keyword].value for keyword in TYPE_2)
    assert "IssuerOfPatientID" not in ds
    assert "StudyDescription" not in ds
    assert "ReferencedRequestSequence" not in ds


def test_a_report_is_preliminary_unverified_and_signed_by_us(tmp_path: Path) -> None:
    ds = report_on(radiograph(tmp_path))
    assert (ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag) == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert (ds.SeriesNumber, ds.SeriesDescription[:3], ds.Modality) == (9001, "AI:", "SR")
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == ComprehensiveSRStorage
    assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert ds.SoftwareVersions == SOFTWARE_VERSION


def test_every_image_is_evidence_under_its_series(tmp_path: Path) -> None:
    paths = [radiograph(tmp_path), radiograph(tmp_path, number=2), radiograph(tmp_path, number=3, SeriesInstanceUID="1.2.3")]
    [study] = report_on(*paths).CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == STUDY_UID
    listed = {
        (series.SeriesInstanceUID, item.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    sources = [pydicom.dcmread(path) for path in paths]
    assert listed == {(source.SeriesInstanceUID, source.SOPInstanceUID) for source in sources}
    assert len(study.ReferencedSeriesSequence) == 3


def test_the_order_is_named_as_the_image_names_it(tmp_path: Path) -> None:
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator, procedure.CodeMeaning = "XRC", "99SITE", "Röntgen Thorax"
    request = Dataset()
    request.RequestedProcedureID = "RP7"
    request.RequestedProcedureDescription = "Röntgen Thorax"
    request.RequestedProcedureCodeSequence = [procedure]
    path = radiograph(
        tmp_path,
        RequestAttributesSequence=[request],
        PlacerOrderNumberImagingServiceRequest="PL-1",
        FillerOrderNumberImagingServiceRequest="FI-1",
    )
    [order] = report_on(path).ReferencedRequestSequence
    assert (order.StudyInstanceUID, order.AccessionNumber, order.RequestedProcedureID) == (STUDY_UID, "A100", "RP7")
    assert order.PlacerOrderNumberImagingServiceRequest == "PL-1"
    assert order.FillerOrderNumberImagingServiceRequest == "FI-1"
    assert order.RequestedProcedureDescription == "Röntgen Thorax"
    assert order.RequestedProcedureCodeSequence[0].CodeMeaning == "Röntgen Thorax"
    assert list(order.ReferencedStudySequence) == []


def test_a_report_names_the_one_that_it_supersedes(tmp_path: Path) -> None:
    predecessor = ObjectReference(
        sop_class_uid=SOPClassUID(ComprehensiveSRStorage),
        sop_instance_uid=SOPInstanceUID("1.2.3.4"),
        series_uid=SeriesUID("1.2.3"),
    )
    path = radiograph(tmp_path)
    [study] = report_on(path, predecessor=predecessor).PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    [document] = series.ReferencedSOPSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (STUDY_UID, "1.2.3")
    assert (document.ReferencedSOPClassUID, document.ReferencedSOPInstanceUID) == (ComprehensiveSRStorage, "1.2.3.4")
    assert "PredecessorDocumentsSequence" not in report_on(path)


def test_times_are_in_the_zone_of_the_image_where_it_names_one(tmp_path: Path) -> None:
    ours = report_on(radiograph(tmp_path))
    assert (ours.ContentDate, ours.ContentTime, ours.TimezoneOffsetFromUTC) == ("20260304", "050607.000089", "+0100")
    theirs = report_on(radiograph(tmp_path, TimezoneOffsetFromUTC="-0530"))
    assert (theirs.ContentDate, theirs.ContentTime, theirs.TimezoneOffsetFromUTC) == ("20260303", "223607.000089", "-0530")


def test_equal_findings_give_equal_bytes_and_no_time_but_theirs(tmp_path: Path) -> None:
    path = radiograph(tmp_path)
    assert encoded(build_structured_report(findings_on(path))) == encoded(build_structured_report(findings_on(path)))
    known = {"20260304", "045900", "19500102", f"{ANALYSED_AT:%H%M%S.%f}", f"{ANALYSED_AT:%Y%m%d%H%M%S.%f%z}"}
    assert {str(element.value) for element in report_on(path).iterall() if element.VR in {"DA", "TM", "DT"}} == known


def uids_of(ds: Dataset) -> set[str]:
    return {str(element.value) for element in ds.iterall() if element.VR == "UI" and str(element.value).startswith("2.25.")}


def test_another_result_or_model_version_has_other_uids(tmp_path: Path) -> None:
    path = radiograph(tmp_path)
    one, other = report_on(path), report_on(path, version="1.1")
    assert uids_of(one) & uids_of(other) == {DEVICE_UID}
    same_version = report_on(path, result_key="more images")
    assert same_version.SOPInstanceUID != one.SOPInstanceUID
    assert same_version.SeriesInstanceUID != one.SeriesInstanceUID
    tracking = uids_of(one) - {DEVICE_UID, one.SOPInstanceUID, one.SeriesInstanceUID}
    assert len(tracking) == 3
    assert tracking <= uids_of(same_version)


def test_the_tree_is_the_same_in_both_sop_classes_under_other_uids(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path))
    plain, solid = (
        build_structured_report(findings),
        build_structured_report(findings, sop_class=Comprehensive3DSRStorage),
    )
    assert solid.SOPClassUID == Comprehensive3DSRStorage
    assert tree(plain) == tree(solid)
    assert plain.SOPInstanceUID != solid.SOPInstanceUID
    assert plain.SeriesInstanceUID != solid.SeriesInstanceUID
    with pytest.raises(InvalidReport):
        build_structured_report(findings, sop_class=SecondaryCaptureImageStorage)


@pytest.mark.parametrize(
    "contradiction",
    [
        {"PatientID": "P-2"},
        {"PatientID": None},
        {"IssuerOfPatientID": "ELSEWHERE"},
        {"PatientBirthDate": "19500103"},
        {"PatientName": "Doe^Jane"},
        {"StudyInstanceUID": "1.2.3"},
        {"SOPInstanceUID": f"{STUDY_UID}.1.1"},
    ],
)
def test_images_of_two_patients_or_studies_are_refused(contradiction: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidReport):
        report_on(radiograph(tmp_path), radiograph(tmp_path, number=2, **contradiction))


@pytest.mark.parametrize(
    "difference",
    [
        {"IssuerOfPatientID": None},
        {"PatientBirthDate": None},
        {"PatientName": "DOE ^JOHN^^^"},
        {"PatientName": None},
        {"PatientSex": "O"},
        {"StudyTime": "050000"},
    ],
)
def test_images_of_one_patient_may_differ_in_how_they_write_it(difference: dict[str, Any], tmp_path: Path) -> None:
    ds = report_on(radiograph(tmp_path), radiograph(tmp_path, number=2, **difference))
    assert ds.PatientName == "Doe^John"


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_image_that_nothing_can_refer_to_is_refused(keyword: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidReport):
        report_on(radiograph(tmp_path, **{keyword: None}))


def test_a_file_that_is_no_image_or_missing_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"no DICOM", bytes(1000), radiograph(tmp_path).read_bytes()[:400]):
        path = tmp_path / "odd.dcm"
        path.write_bytes(content)
        with pytest.raises(InvalidReport):
            report_on(path)
    with pytest.raises(InvalidReport):
        report_on(tmp_path / "missing.dcm")


def test_an_identifier_is_never_cut_and_its_control_characters_go(tmp_path: Path) -> None:
    odd_uid = f"{STUDY_UID}.0123456789"
    path = radiograph(tmp_path, PatientID="x" * 70, AccessionNumber="1234567890abcdefXYZ", StudyInstanceUID=odd_uid)
    ds = build_structured_report(findings_on(with_bytes(path, b"1234567890abcdef", b"12345\n7890abcdef")))
    assert ds.PatientID == "x" * 70
    assert ds.AccessionNumber == "123457890abcdefXYZ"
    assert ds.StudyInstanceUID == odd_uid


@pytest.mark.parametrize(
    ("keyword", "wrong", "written"),
    [
        ("StudyDate", "20261399", ""),
        ("StudyDate", "2026.03.04", "20260304"),
        ("PatientBirthDate", "0000", ""),
        ("StudyTime", "25:00:00", ""),
        ("StudyTime", "12:34:56", "123456"),
        ("PatientSex", "MALE", ""),
        ("PatientSex", "f", "F"),
        ("StudyDescription", "x" * 70, "x" * 64),
    ],
)
def test_a_value_that_its_kind_forbids_is_not_passed_on(keyword: str, wrong: str, written: str, tmp_path: Path) -> None:
    ds = report_on(radiograph(tmp_path, **{keyword: wrong}))
    assert ds[keyword].value == written


ODD = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "ViewPosition",
    "PatientOrientation",
    "ImagerPixelSpacing",
    "Rows",
    "StudyInstanceUID",
)
BROKEN = st.dictionaries(
    st.sampled_from([*TYPE_2, *ODD]),
    st.one_of(
        st.binary(max_size=80),
        st.text(max_size=80).map(str.encode),
        st.sampled_from(
            [b"ISO_IR 192", b"\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B", b"GB18030", b"nonsense", b"1.02.3", b"a\\b=c=d=e=f"]
        ),
    ),
)


USABLE = {
    "SOPClassUID": b"1.2.840.10008.5.1.4.1.1.1.1",
    "SOPInstanceUID": b"1.2.3.4",
    "SeriesInstanceUID": b"1.2.3",
    "StudyInstanceUID": b"1.2",
}


def explicit_vr_little_endian(values: dict[str, bytes]) -> bytes:
    """A bare data set of elements with short lengths (PS3.5 section 7.1.2)."""
    parts = []
    for keyword, value in sorted(values.items(), key=lambda pair: Tag(pair[0])):
        tag, padded = Tag(keyword), value + b" " * (len(value) % 2)
        parts.append(pack("<HH2sH", tag.group, tag.element, dictionary_VR(tag).encode(), len(padded)) + padded)
    return b"".join(parts)


@given(values=BROKEN)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_an_image_says_there_is_a_report_or_a_refusal_and_no_value_in_a_log(
    values: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "broken.dcm"
    path.write_bytes(explicit_vr_little_endian(USABLE | values))
    with caplog.at_level(logging.DEBUG):
        caplog.clear()
        try:
            ds = build_structured_report(findings_on(path))
        except InvalidReport:
            return
        written = encoded(ds)
    assert caplog.text == ""
    assert pydicom.dcmread(BytesIO(written), specific_tags=["SOPInstanceUID"]).SOPInstanceUID == ds.SOPInstanceUID
