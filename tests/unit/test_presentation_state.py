from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from dicom_io.codes import Assessment
from dicom_io.errors import InvalidReport
from dicom_io.presentation_state import build_presentation_state
from dicom_io.wording import Language, wording_in
from tests.studies import STUDY_UID, complaints, encoded, findings_on, radiograph, reread

STORED = np.arange(256, dtype=np.uint8).reshape(16, 16)
CELLS = {"Rows": 16, "Columns": 16, "PixelData": STORED.tobytes(), "WindowCenter": None, "WindowWidth": None}


def state_on(*paths: Path, **changes: Any) -> Dataset:
    return reread(build_presentation_state(findings_on(*paths, **changes)))


def table(entries: list[int], first: int, bits: int, **attributes: Any) -> list[Dataset]:
    """A lookup table of 16-bit words."""
    item = Dataset()
    item["LUTDescriptor"] = DataElement("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 0x10000, first, bits])
    item["LUTData"] = DataElement("LUTData", "OW", np.array(entries, "<u2").tobytes())
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return [item]


def referred_to(items: Any) -> list[str]:
    return [image.ReferencedSOPInstanceUID for item in items for image in item.ReferencedImageSequence]


def texts(ds: Dataset) -> list[str]:
    return [item.TextObjectSequence[0].UnformattedTextValue for item in ds.GraphicAnnotationSequence]


def displayed(ds: Dataset) -> NDArray[np.float64]:
    """What pydicom makes of stored values by the attributes of an image or a presentation state, before polarity."""
    ds.BitsStored, ds.BitsAllocated, ds.PixelRepresentation, ds.PhotometricInterpretation = 8, 8, 0, "MONOCHROME2"
    voi = ds.get("SoftcopyVOILUTSequence")
    if voi:
        ds.update({element.tag: element for element in voi[0]})
    values = apply_modality_lut(STORED.astype(np.uint16), ds)
    return np.asarray(apply_voi_lut(values.astype(np.int64) if ds.get("VOILUTSequence") else values, ds), np.float64)


def test_every_image_is_referred_to_and_has_a_text_of_its_own(tmp_path: Path) -> None:
    ds = state_on(radiograph(tmp_path), radiograph(tmp_path, number=2))
    expected = [f"{STUDY_UID}.1.1", f"{STUDY_UID}.2.2"]
    for items in (ds.ReferencedSeriesSequence, ds.DisplayedAreaSelectionSequence, ds.GraphicAnnotationSequence):
        assert referred_to(items) == expected
    assert [series.SeriesInstanceUID for series in ds.ReferencedSeriesSequence] == [f"{STUDY_UID}.1", f"{STUDY_UID}.2"]
    assert ["COVID-19 73.1 %" in text for text in texts(ds)] == [True, False]
    assert ["Normal 90.0 %" in text for text in texts(ds)] == [False, True]


@pytest.mark.parametrize("language", Language)
def test_the_text_says_how_urgent_how_probable_and_what_it_is_not(language: Language, tmp_path: Path) -> None:
    words = wording_in(language)
    [text] = texts(state_on(radiograph(tmp_path), language=language))
    triage, level, *classes, generated, diagnosis, research = text.split("\r\n")
    assert (triage, level) == (f"{words.triage}:", words.levels[Assessment.ACTIONABLE_WITHIN_MINUTES])
    assert [line.split()[-2] for line in classes] == ["73.1", "10.0", "16.9"]
    assert f"{generated} {diagnosis} {research}" == words.disclaimer


def test_what_the_classifier_is_not_sure_of_is_said(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path))
    unsure = replace(findings, images=(replace(findings.images[0], undetermined=True),))
    assert wording_in(Language.ENGLISH).undetermined in texts(build_presentation_state(unsure))[0]


def test_the_text_stands_in_the_corner_of_the_display_and_not_in_the_image(tmp_path: Path) -> None:
    [annotation] = state_on(radiograph(tmp_path)).GraphicAnnotationSequence
    [text] = annotation.TextObjectSequence
    assert text.BoundingBoxAnnotationUnits == "DISPLAY"
    assert "AnchorPoint" not in text
    assert "GraphicObjectSequence" not in annotation
    (left, top), (right, bottom) = text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner
    assert 0 <= left < right <= 0.25
    assert 0 <= top < bottom <= 0.15 + 1e-6


def test_the_whole_image_is_shown_at_its_aspect(tmp_path: Path) -> None:
    paths = radiograph(tmp_path, **CELLS), radiograph(tmp_path, number=2, ImagerPixelSpacing=None)
    one, other = state_on(*paths).DisplayedAreaSelectionSequence
    assert (one.DisplayedAreaTopLeftHandCorner, one.DisplayedAreaBottomRightHandCorner) == ([1, 1], [16, 16])
    assert other.DisplayedAreaBottomRightHandCorner == [4, 4]
    assert one.PresentationSizeMode == other.PresentationSizeMode == "SCALE TO FIT"
    assert one.PresentationPixelSpacing == [0.2, 0.15]
    assert other.PresentationPixelAspectRatio == [1, 1]


@pytest.mark.parametrize(
    ("photometric", "shape", "shown"),
    [
        ("MONOCHROME1", "INVERSE", "INVERSE"),
        ("MONOCHROME1", None, "INVERSE"),
        ("MONOCHROME2", "IDENTITY", "IDENTITY"),
        ("MONOCHROME2", None, "IDENTITY"),
    ],
)
def test_black_and_white_are_those_of_the_image(photometric: str, shape: str | None, shown: str, tmp_path: Path) -> None:
    path = radiograph(tmp_path, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    assert state_on(path).PresentationLUTShape == shown


RISING = [round(4095 * (place / 255) ** 2) for place in range(256)]


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": "100", "WindowWidth": "50"},
        {"WindowCenter": ["90.5", "7"], "WindowWidth": ["60", "8"], "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": "100", "WindowWidth": "50", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "0", "WindowWidth": "100", "RescaleSlope": "0.5", "RescaleIntercept": "-40", "RescaleType": "US"},
        {"VOILUTSequence": table(RISING, 0, 12)},
        {"VOILUTSequence": table(RISING, -40, 12), "RescaleSlope": "1", "RescaleIntercept": "-40", "RescaleType": "US"},
        {"VOILUTSequence": table(RISING, -255, 12), "RescaleSlope": "-1", "RescaleIntercept": "0", "RescaleType": "US"},
        {"ModalityLUTSequence": table(RISING, 0, 16, ModalityLUTType="US"), "WindowCenter": "2000", "WindowWidth": "900"},
    ],
)
def test_the_contrast_is_that_of_the_image(attributes: dict[str, Any], tmp_path: Path) -> None:
    usual = {"RescaleSlope": None, "RescaleIntercept": None, "RescaleType": None}
    path = radiograph(tmp_path, **{**CELLS, **usual, **attributes})
    state = state_on(path)
    np.testing.assert_array_equal(displayed(state), displayed(pydicom.dcmread(path)))
    assert not np.array_equal(displayed(state), STORED)


def test_a_table_of_bytes_stays_one(tmp_path: Path) -> None:
    [item] = table([], 0, 8)
    item.LUTDescriptor, item["LUTData"].value = [256, 0, 8], bytes(reversed(range(256)))
    state = state_on(radiograph(tmp_path, **CELLS, VOILUTSequence=[item]))
    [copied] = state.SoftcopyVOILUTSequence[0].VOILUTSequence
    assert (list(copied.LUTDescriptor), copied.LUTData) == ([256, 0, 8], bytes(reversed(range(256))))


@pytest.mark.parametrize("attributes", [{}, {"WindowCenter": "100", "WindowWidth": "0"}, {"WindowCenter": "100"}])
def test_an_image_without_a_usable_window_gets_none(attributes: dict[str, Any], tmp_path: Path) -> None:
    assert "SoftcopyVOILUTSequence" not in state_on(radiograph(tmp_path, **{**CELLS, **attributes}))


RECTANGLE = {
    "ShutterShape": "RECTANGULAR",
    "ShutterLeftVerticalEdge": 2,
    "ShutterRightVerticalEdge": 3,
    "ShutterUpperHorizontalEdge": 1,
    "ShutterLowerHorizontalEdge": 4,
}
CIRCLE = {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [2, 3], "RadiusOfCircularShutter": 2}


@pytest.mark.parametrize("shutter", [RECTANGLE, CIRCLE, {**RECTANGLE, **CIRCLE, "ShutterShape": ["RECTANGULAR", "CIRCULAR"]}])
def test_the_shutter_of_the_image_stays_shut(shutter: dict[str, Any], tmp_path: Path) -> None:
    ds = state_on(radiograph(tmp_path, **shutter))
    assert {keyword: ds[keyword].value for keyword in shutter} == shutter
    assert ds.ShutterPresentationValue == 0
    assert complaints(ds, tmp_path) == []


@pytest.mark.parametrize("lacking", ["ShutterLeftVerticalEdge", "ShutterShape"])
def test_a_shutter_that_is_not_whole_is_none(lacking: str, tmp_path: Path) -> None:
    ds = state_on(radiograph(tmp_path, **{**RECTANGLE, lacking: None}))
    assert not [element.keyword for element in ds if "Shutter" in element.keyword]


def test_images_that_one_state_cannot_show_together_are_left_out(tmp_path: Path) -> None:
    """The flagged one stays."""
    paths = radiograph(tmp_path), radiograph(tmp_path, number=2, PhotometricInterpretation="MONOCHROME1")
    findings = findings_on(*paths)
    assert referred_to(build_presentation_state(findings).ReferencedSeriesSequence) == [f"{STUDY_UID}.1.1"]
    turned = replace(findings, images=findings.images[::-1])
    assert referred_to(build_presentation_state(turned).ReferencedSeriesSequence) == [f"{STUDY_UID}.1.1"]


def test_it_is_a_presentation_state_by_a_device_in_its_own_series(tmp_path: Path) -> None:
    ds = state_on(radiograph(tmp_path))
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == GrayscaleSoftcopyPresentationStateStorage
    assert (ds.SeriesNumber, ds.Modality, ds.BodyPartExamined) == (9006, "PR", "CHEST")
    assert (ds.ContentLabel, ds.ContentCreatorName) == ("AI_RESULT", "cxr-worker^AI")
    assert (ds.PresentationCreationDate, ds.PresentationCreationTime) == ("20260304", "050607.000089")


def test_nothing_of_the_patient_is_written_on_the_image(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = radiograph(tmp_path / "other", PatientName="Other^Person", PatientID="P-2", AccessionNumber="B")
    assert texts(state_on(other)) == texts(state_on(radiograph(tmp_path)))


def test_equal_findings_give_equal_bytes(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path))
    assert encoded(build_presentation_state(findings)) == encoded(build_presentation_state(findings))


@pytest.mark.parametrize(
    "broken",
    [
        {"PhotometricInterpretation": "RGB"},
        {"BitsAllocated": None},
        {"VOILUTSequence": [Dataset()]},
        {"number": 2, "PatientID": "P-2"},
    ],
)
def test_an_image_that_does_not_say_how_it_is_shown_is_refused(broken: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidReport):
        state_on(radiograph(tmp_path, number=7), radiograph(tmp_path, **broken))
