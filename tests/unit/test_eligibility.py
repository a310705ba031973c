from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ComputedRadiographyImageStorage, DigitalXRayImageStorageForProcessing, SecondaryCaptureImageStorage

from dicom_io.eligibility import ReasonCode, Verdict, judge
from dicom_io.quiet import quietly
from tests.factories import make_dx

SILENT_PART: dict[str, Any] = {"BodyPartExamined": None, "AnatomicRegionSequence": None}
SILENT_VIEW: dict[str, Any] = {"ViewPosition": "", "ViewCodeSequence": None}


def coded(value: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "whatever"
    return Sequence([item])


def judged(**attributes: Any) -> Verdict:
    """Verdict on a frontal chest film with some attributes changed; None removes one."""
    ds = make_dx()
    with quietly:  # devices write what pydicom warns of
        for keyword, value in attributes.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
    return judge(ds)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"Modality": "CR", "SOPClassUID": ComputedRadiographyImageStorage, "PresentationIntentType": None},
        {"Modality": "CR", "SOPClassUID": SecondaryCaptureImageStorage, "PresentationIntentType": None, "ImageType": None},
        {"SOPClassUID": SecondaryCaptureImageStorage, "ImageType": ["DERIVED", "SECONDARY"], "ConversionType": "DF"},
        {"ImageType": "ORIGINAL PRIMARY"},
        {"ImageType": ["DERIVED", "SECONDARY"], "DerivationDescription": "Lossless RLE compression, compression ratio 3.2116"},
        {"ImageType": ["DERIVED", "SECONDARY"], "DerivationCodeSequence": coded("113040")},
        {"BodyPartExamined": None},
        {"BodyPartExamined": "thorax "},
        {"BodyPartExamined": "CHEST AP", "AnatomicRegionSequence": None},
        {"AnatomicRegionSequence": coded("T-D3000")},
        {"AnatomicRegionSequence": coded("51185008")},
        {"ViewPosition": ""},
        {"ViewCodeSequence": None},
        {"ViewPosition": "AP SUPINE", "ViewCodeSequence": None},
        {"ViewPosition": "", "ViewCodeSequence": coded("R-10206")},
        {"ViewPosition": "AP", "ViewCodeSequence": coded("399033003")},
        {"PatientOrientation": None},
        {"PatientOrientation": ["R", "F"]},
        {"PatientOrientation": ["L", "FR"]},
        {"PatientOrientation": ["F", "L"]},
        {"SeriesDescription": "Thorax pa, testes covered", "PatientName": "PHANTOM^TEST"},
        {"NumberOfFrames": "1"},
        {"PatientSpeciesDescription": "Homo sapiens", "PatientSpeciesCodeSequence": coded("337915000")},
        {"SeriesDescription": "Chest PA/LAT"},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ],
)
def test_a_film_whose_tags_say_frontal_chest_is_eligible(attributes: dict[str, Any]) -> None:
    verdict = judged(**attributes)
    assert verdict.eligible, verdict
    assert verdict.code is ReasonCode.ELIGIBLE


@pytest.mark.parametrize(
    ("attributes", "code", "named"),
    [
        ({"Modality": "CT"}, ReasonCode.NOT_RADIOGRAPH, "Modality is CT"),
        ({"Modality": None}, ReasonCode.NOT_RADIOGRAPH, "Modality is missing"),
        ({"Modality": ["DX", "CR"]}, ReasonCode.NOT_RADIOGRAPH, "Modality is DX\\CR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2"}, ReasonCode.NOT_RADIOGRAPH, "SOPClassUID"),
        ({"SOPClassUID": DigitalXRayImageStorageForProcessing}, ReasonCode.FOR_PROCESSING, "SOPClassUID"),
        ({"PresentationIntentType": "FOR PROCESSING"}, ReasonCode.FOR_PROCESSING, "PresentationIntentType"),
        ({"PatientSpeciesDescription": "Canine"}, ReasonCode.NOT_HUMAN, "PatientSpeciesDescription"),
        ({"PatientSpeciesCodeSequence": coded("448771007")}, ReasonCode.NOT_HUMAN, "PatientSpeciesDescription"),
        ({"PatientBreedDescription": "Beagle"}, ReasonCode.NOT_HUMAN, "breed"),
        ({"AnatomicalOrientationType": "QUADRUPED"}, ReasonCode.NOT_HUMAN, "AnatomicalOrientationType"),
        ({"QualityControlImage": "YES"}, ReasonCode.QUALITY_CONTROL, "QualityControlImage"),
        ({"QualityControlSubject": "YES"}, ReasonCode.QUALITY_CONTROL, "QualityControlSubject"),
        ({"SeriesDescription": "chest phantom"}, ReasonCode.QUALITY_CONTROL, "SeriesDescription"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, ReasonCode.LOCALIZER, "ImageType"),
        ({"ScanOptions": "SCOUT MODE"}, ReasonCode.LOCALIZER, "ScanOptions"),
        ({"SeriesDescription": "Topogram 0.6"}, ReasonCode.LOCALIZER, "SeriesDescription"),
        ({"RescaleType": "HU"}, ReasonCode.LOCALIZER, "RescaleType"),
        ({"DataCollectionDiameter": "500"}, ReasonCode.LOCALIZER, "DataCollectionDiameter"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, ReasonCode.DERIVED, "ImageType"),
        ({"ImageType": ["DERIVED", "PRIMARY", "", "SOFT_TISSUE"]}, ReasonCode.DERIVED, "ImageType"),
        (
            {"ImageType": ["DERIVED", "SECONDARY"], "DerivationDescription": "bone suppression and compression"},
            ReasonCode.DERIVED,
            "ImageType",
        ),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "ConversionType": "SYN"}, ReasonCode.DERIVED, "ConversionType"),
        ({"NumberOfFrames": "2"}, ReasonCode.MULTI_FRAME, "NumberOfFrames is 2"),
        ({"PhotometricInterpretation": "RGB"}, ReasonCode.NOT_MONOCHROME, "PhotometricInterpretation is RGB"),
        ({"PhotometricInterpretation": None}, ReasonCode.NOT_MONOCHROME, "PhotometricInterpretation is missing"),
        ({"SamplesPerPixel": 3}, ReasonCode.NOT_MONOCHROME, "SamplesPerPixel is 3"),
        (SILENT_PART | {"StudyDescription": "Knee AP"}, ReasonCode.NOT_CHEST, "description"),
        (SILENT_VIEW | {"SeriesDescription": "Thorax LATERAL"}, ReasonCode.NOT_FRONTAL, "SeriesDescription"),
        (SILENT_VIEW | {"PixelData": None}, ReasonCode.NO_PIXELS, "PixelData"),
        ({"BodyPartExamined": "HIP", "AnatomicRegionSequence": None}, ReasonCode.NOT_CHEST, "BodyPartExamined is HIP"),
        ({"BodyPartExamined": "CHESTABDOMEN", "AnatomicRegionSequence": None}, ReasonCode.NOT_CHEST, "CHESTABDOMEN"),
        ({"BodyPartExamined": "CHEST ABDOMEN", "AnatomicRegionSequence": None}, ReasonCode.NOT_CHEST, "CHEST ABDOMEN"),
        ({"BodyPartExamined": "", "AnatomicRegionSequence": coded("29836001")}, ReasonCode.NOT_CHEST, "AnatomicRegionSequence"),
        ({"AnatomicRegionSequence": coded("29836001")}, ReasonCode.CONTRADICTORY, "AnatomicRegionSequence"),
        ({"BodyPartExamined": "HIP"}, ReasonCode.CONTRADICTORY, "BodyPartExamined"),
        ({"ViewPosition": "LL", "ViewCodeSequence": None}, ReasonCode.NOT_FRONTAL, "ViewPosition is LL"),
        ({"ViewPosition": "AP LORDOTIC", "ViewCodeSequence": None}, ReasonCode.NOT_FRONTAL, "LORDOTIC"),
        ({"ViewPosition": "PA/LAT", "ViewCodeSequence": None}, ReasonCode.NOT_FRONTAL, "PA/LAT"),
        ({"ViewPosition": "", "ViewCodeSequence": coded("399173006")}, ReasonCode.NOT_FRONTAL, "ViewCodeSequence"),
        ({"ViewPosition": "LL"}, ReasonCode.CONTRADICTORY, "ViewCodeSequence"),
        ({"ViewPosition": "AP"}, ReasonCode.CONTRADICTORY, "ViewPosition"),
        ({"SeriesDescription": "Thorax LATERAL"}, ReasonCode.CONTRADICTORY, "SeriesDescription"),
        ({"PatientOrientation": ["A", "F"]}, ReasonCode.CONTRADICTORY, "PatientOrientation is A\\F"),
        ({"PatientOrientation": ["F", "H"]}, ReasonCode.CONTRADICTORY, "PatientOrientation"),
        ({"PatientOrientation": "L"}, ReasonCode.CONTRADICTORY, "PatientOrientation"),
        ({"PixelData": None}, ReasonCode.NO_PIXELS, "PixelData"),
        ({"Rows": 127}, ReasonCode.TOO_SMALL, "Rows is 127"),
        ({"Rows": 641}, ReasonCode.TOO_LARGE, "Rows is 641"),
        ({"Rows": 60000, "Columns": 50000}, ReasonCode.TOO_LARGE, "Rows is 60000"),
        ({"Rows": None}, ReasonCode.UNREADABLE, "Rows"),
        ({"Rows": [320, 0]}, ReasonCode.UNREADABLE, "Rows"),
    ],
)
def test_any_other_image_is_refused_with_the_attribute_that_decided(
    attributes: dict[str, Any], code: ReasonCode, named: str
) -> None:
    verdict = judged(**attributes)
    assert not verdict.eligible
    assert not verdict.doubtful
    assert verdict.code is code
    assert named in verdict.reason
    assert verdict.notes == ()


@pytest.mark.parametrize(
    ("attributes", "code", "named"),
    [
        (SILENT_PART, ReasonCode.BODY_PART_MISSING, "BodyPartExamined"),
        ({"BodyPartExamined": "", "AnatomicRegionSequence": Sequence()}, ReasonCode.BODY_PART_MISSING, "BodyPartExamined"),
        (SILENT_PART | {"StudyDescription": "Chest and abdomen"}, ReasonCode.BODY_PART_MISSING, "BodyPartExamined"),
        (SILENT_VIEW, ReasonCode.VIEW_MISSING, "ViewPosition"),
        (SILENT_PART | SILENT_VIEW, ReasonCode.BODY_PART_MISSING, "BodyPartExamined"),
    ],
)
def test_an_image_whose_tags_name_no_chest_or_no_view_is_left_to_its_pixels(
    attributes: dict[str, Any], code: ReasonCode, named: str
) -> None:
    verdict = judged(**attributes, BurnedInAnnotation="YES")
    assert (verdict.eligible, verdict.doubtful, verdict.code) == (False, True, code)
    assert named in verdict.reason
    assert verdict.notes == ("BurnedInAnnotation is YES",)


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"PatientAge": "018Y"}, ReasonCode.ELIGIBLE),
        ({"PatientAge": "017Y"}, ReasonCode.UNDER_AGE),
        ({"PatientAge": "215M"}, ReasonCode.UNDER_AGE),
        ({"PatientAge": "216M"}, ReasonCode.ELIGIBLE),
        ({"PatientAge": "900W"}, ReasonCode.UNDER_AGE),
        ({"PatientAge": "003D"}, ReasonCode.UNDER_AGE),
        ({"PatientAge": "45"}, ReasonCode.AGE_MISSING),
        ({}, ReasonCode.AGE_MISSING),
        ({"PatientBirthDate": "20060301", "StudyDate": "20240301"}, ReasonCode.ELIGIBLE),
        ({"PatientBirthDate": "20060302", "StudyDate": "20240301"}, ReasonCode.UNDER_AGE),
        ({"PatientBirthDate": "20060230", "StudyDate": "20240301"}, ReasonCode.AGE_MISSING),
        ({"PatientBirthDate": "20230101", "StudyDate": "20240301", "PatientAge": "050Y"}, ReasonCode.UNDER_AGE),
    ],
)
def test_patients_under_the_configured_age_are_refused_and_so_is_an_age_that_nothing_tells(
    attributes: dict[str, Any], code: ReasonCode
) -> None:
    ds = make_dx()
    for keyword in ("PatientAge", "PatientBirthDate", "StudyDate", "AcquisitionDate", "ContentDate"):
        if keyword in ds:
            delattr(ds, keyword)
    with quietly:
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
    assert judge(ds, minimum_age_years=18).code is code
    assert judge(ds).eligible


def test_what_lowers_the_trust_is_noted() -> None:
    verdict = judged(
        ViewPosition="AP", ViewCodeSequence=None, BurnedInAnnotation="YES", SOPClassUID=SecondaryCaptureImageStorage
    )
    assert [note.split()[0] for note in verdict.notes] == ["Secondary", "AP", "BurnedInAnnotation"]


@pytest.mark.parametrize("value", ["Doe^Jane 1961-02-03", "line\nbreak", "\x1b[31mred", "A" * 200, "<script>"])
def test_only_what_looks_like_a_code_is_quoted(value: str) -> None:
    ds = make_dx()
    del ds.AnatomicRegionSequence
    ds[0x0018, 0x0015] = RawDataElement(Tag(0x00180015), "CS", len(value), value.encode(), 0, False, True)
    assert judge(ds).reason == "BodyPartExamined is not a code; CHEST or THORAX is expected."


DECISIVE = sorted(
    {
        *("SOPClassUID", "Modality", "PatientSpeciesDescription", "PatientSpeciesCodeSequence", "AnatomicalOrientationType"),
        *("PresentationIntentType", "QualityControlImage", "ImageType", "DerivationCodeSequence", "DerivationDescription"),
        *("NumberOfFrames", "PhotometricInterpretation", "SamplesPerPixel", "BodyPartExamined", "AnatomicRegionSequence"),
        *("QualityControlSubject", "StudyDescription", "ProtocolName", "ScanOptions", "RescaleType", "PatientAge"),
        *(
            "PatientBirthDate",
            "StudyDate",
            "ViewPosition",
            "ViewCodeSequence",
            "SeriesDescription",
            "PatientOrientation",
            "Rows",
            "Columns",
            "PixelData",
        ),
    }
)
VALUE_REPRESENTATIONS = (
    "AE",
    "AT",
    "CS",
    "DS",
    "DT",
    "FD",
    "FL",
    "IS",
    "LO",
    "OB",
    "OW",
    "PN",
    "SH",
    "SQ",
    "SS",
    "UI",
    "UN",
    "US",
    "UT",
)


def raw_element(keyword: str, vr: str, value: bytes) -> Callable[[Dataset], None]:
    def put(ds: Dataset) -> None:
        tag = Tag(keyword)
        ds[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)

    return put


@given(
    st.lists(
        st.builds(raw_element, st.sampled_from(DECISIVE), st.sampled_from(VALUE_REPRESENTATIONS), st.binary(max_size=24)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=300, deadline=None)
def test_no_header_brings_the_gate_down(changes: list[Callable[[Dataset], None]]) -> None:
    ds = make_dx()
    for change in changes:
        change(ds)
    verdict = judge(ds, minimum_age_years=18)
    assert verdict.reason.isprintable()
    assert verdict.eligible == (verdict.code is ReasonCode.ELIGIBLE)


@pytest.mark.parametrize("keyword", DECISIVE)
@pytest.mark.parametrize("value", [None, "", [], [None, "x"], 3, -1, 1.5, b"\x00", ["A", "B", "C"], Sequence([Dataset()])])
def test_no_python_value_brings_the_gate_down(keyword: str, value: Any) -> None:
    ds = make_dx()
    if keyword not in ds:
        ds.add_new(keyword, dictionary_VR(keyword), None)
    ds[keyword]._value = value  # noqa: SLF001  past pydicom's own checks, as a broken file gets past them
    verdict = judge(ds, minimum_age_years=18)
    assert verdict.reason.isprintable()


def test_an_empty_data_set_is_refused() -> None:
    assert judge(Dataset()).code is ReasonCode.NOT_RADIOGRAPH
