from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.capture import build_capture
from dicom_io.codes import Assessment, Condition
from dicom_io.errors import InvalidReport
from dicom_io.report import build_structured_report
from dicom_io.values import ClassFinding, StudyFindings
from tests.studies import ANALYSED_AT, STUDY_UID, findings_on, radiograph

ORANGE, WHITE, BLACK = (230, 159, 0), (240, 243, 247), (0, 0, 0)
PANEL = slice(960, None)
HEADLINE = slice(0, 200)
FOOTER = slice(840, None)

RAMP = np.linspace(0, 1, 300 * 300, dtype=np.float32).reshape(300, 300)


def capture_of(findings: StudyFindings, *, image: int = 0, pixels: NDArray[np.float32] = RAMP) -> Dataset:
    file = BytesIO()
    pydicom.dcmwrite(file, build_capture(findings, image=image, pixels=pixels), enforce_file_format=True)
    return pydicom.dcmread(BytesIO(file.getvalue()))


def page_of(findings: StudyFindings, **what: Any) -> NDArray[np.uint8]:
    page: NDArray[np.uint8] = capture_of(findings, **what).pixel_array
    return page


def has_colour(page: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (page == colour).all(axis=2)
    return same


def with_first(findings: StudyFindings, change: Callable[[ClassFinding], ClassFinding]) -> StudyFindings:
    first, *others = findings.images[0].findings
    image = replace(findings.images[0], findings=(change(first), *others))
    return replace(findings, images=(image, *findings.images[1:]))


def test_the_radiograph_is_shown_whole_and_nothing_is_drawn_on_it(tmp_path: Path) -> None:
    page = page_of(findings_on(radiograph(tmp_path)))
    shown = page[32:992, :960]
    assert (shown == shown[..., :1]).all()
    rows = np.arange(960) + 0.5
    expected = RAMP[np.minimum(rows / 3.2, 299).astype(int)][:, np.minimum(rows / 3.2, 299).astype(int)] * 255
    assert np.abs(shown[..., 0] - expected).max() <= 2
    assert not page[:32, :960].any()
    assert not page[992:, :960].any()


@pytest.mark.parametrize(("shape", "box"), [((100, 400), (960, 240)), ((400, 100), (256, 1024)), ((2048, 2048), (960, 960))])
def test_the_radiograph_keeps_its_aspect(shape: tuple[int, int], box: tuple[int, int], tmp_path: Path) -> None:
    page = page_of(findings_on(radiograph(tmp_path)), pixels=np.ones(shape, np.float32))
    lit = page[:, :960].any(axis=2)
    assert (int(lit.any(axis=0).sum()), int(lit.any(axis=1).sum())) == box


@pytest.mark.parametrize("probability", [0.45, 0.7312, 1.0])
def test_a_bar_is_as_long_as_the_probability(probability: float, tmp_path: Path) -> None:
    findings = with_first(
        findings_on(radiograph(tmp_path)), lambda finding: replace(finding, probability=probability, threshold=None)
    )
    orange = has_colour(page_of(findings)[200:, PANEL], ORANGE)
    assert orange.sum(axis=1).max() == pytest.approx(probability * 512, abs=2)


@pytest.mark.parametrize("threshold", [0.2, 0.41, 0.6])
def test_the_threshold_is_marked_where_it_is(threshold: float, tmp_path: Path) -> None:
    findings = with_first(findings_on(radiograph(tmp_path)), lambda finding: replace(finding, threshold=threshold))
    panel = page_of(findings)[200:, PANEL]
    row = has_colour(panel, ORANGE).sum(axis=1).argmax()
    [marks] = np.nonzero(has_colour(panel[row : row + 1], WHITE)[0])
    assert marks.mean() == pytest.approx(32 + threshold * 512, abs=2)


def test_orange_is_for_what_raises_concern_alone(tmp_path: Path) -> None:
    path = radiograph(tmp_path)
    assert has_colour(page_of(findings_on(path))[HEADLINE, PANEL], ORANGE).sum() > 10_000
    calm = findings_on(path, assessment=Assessment.NORMAL)
    calm = with_first(calm, lambda finding: replace(finding, present=False))
    page = page_of(calm)
    assert calm.images[0].findings[1].condition is Condition.NORMAL
    assert not has_colour(page, ORANGE).any()


def test_what_a_reader_must_know_changes_the_page(tmp_path: Path) -> None:
    paths = radiograph(tmp_path), radiograph(tmp_path, number=2)
    usual = findings_on(*paths)
    pages = [
        page_of(usual),
        page_of(usual, image=1),
        page_of(findings_on(*paths, version="1.1")),
        page_of(findings_on(*paths, impression="Something else.")),
        page_of(findings_on(*paths, assessment=Assessment.ACTIONABLE_WITHIN_HOURS)),
        page_of(findings_on(*paths, analysed_at=ANALYSED_AT.replace(hour=6))),
        page_of(findings_on(*paths[:1])),
        page_of(findings_on(*paths, assessment=Assessment.NORMAL)),
        page_of(findings_on(*paths, assessment=Assessment.UNDETERMINED)),
        page_of(replace(usual, images=tuple(replace(image, undetermined=True) for image in usual.images))),
    ]
    assert len({page.tobytes() for page in pages}) == len(pages)


def test_nothing_of_the_patient_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = radiograph(
        tmp_path / "other", PatientName="Other^Person", PatientID="P-2", PatientBirthDate="19990909", AccessionNumber="B"
    )
    ds = capture_of(findings_on(other))
    assert ds.PixelData == capture_of(findings_on(radiograph(tmp_path))).PixelData
    assert ds.BurnedInAnnotation == "NO"


def test_what_is_burned_into_the_radiograph_is_declared(tmp_path: Path) -> None:
    paths = radiograph(tmp_path), radiograph(tmp_path, number=2, BurnedInAnnotation="YES")
    assert capture_of(findings_on(*paths)).BurnedInAnnotation == "NO"
    assert capture_of(findings_on(*paths), image=1).BurnedInAnnotation == "YES"


def test_loss_in_the_radiograph_is_declared(tmp_path: Path) -> None:
    assert "LossyImageCompression" not in capture_of(findings_on(radiograph(tmp_path)))
    assert capture_of(findings_on(radiograph(tmp_path, LossyImageCompression="01"))).LossyImageCompression == "01"


def test_long_words_leave_the_limits_readable(tmp_path: Path) -> None:
    usual = findings_on(radiograph(tmp_path))
    page = page_of(replace(usual, impression="word " * 99))
    assert (page[FOOTER, PANEL] == page_of(usual)[FOOTER, PANEL]).all()


def test_identity_is_that_of_the_report(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path, SpecificCharacterSet="GB18030", PatientName="Wang^XiaoDong=王^小东"))
    ds, report = capture_of(findings), build_structured_report(findings)
    assert str(ds.PatientName) == "Wang^XiaoDong=王^小东"
    shared = "PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID StudyDate AccessionNumber SpecificCharacterSet"
    for keyword in shared.split():
        assert ds[keyword].value == report[keyword].value
    assert ds.SeriesInstanceUID != report.SeriesInstanceUID
    assert ds.SOPInstanceUID != report.SOPInstanceUID


def test_the_object_says_what_it_is_and_what_it_comes_from(tmp_path: Path) -> None:
    ds = capture_of(findings_on(radiograph(tmp_path), radiograph(tmp_path, number=2)))
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (ds.SeriesNumber, ds.SeriesDescription[:3], ds.BodyPartExamined) == (9002, "AI:", "CHEST")
    assert list(ds.ImageType) == ["DERIVED", "SECONDARY"]
    assert "lenet5 1.0" in ds.DerivationDescription
    sources = [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence]
    assert sources == [f"{STUDY_UID}.1.1", f"{STUDY_UID}.2.2"]
    assert (ds.Rows, ds.Columns, ds.PhotometricInterpretation) == (1024, 1536, "RGB")


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path))
    one, other = BytesIO(), BytesIO()
    for file in (one, other):
        pydicom.dcmwrite(file, build_capture(findings, image=0, pixels=RAMP), enforce_file_format=True)
    assert one.getvalue() == other.getvalue()
    assert capture_of(findings_on(radiograph(tmp_path), version="1.1")).SOPInstanceUID != capture_of(findings).SOPInstanceUID


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 4), np.float32),
        np.zeros((4, 4, 3), np.float32),
        np.full((4, 4), 1.5, np.float32),
        np.full((4, 4), -0.5, np.float32),
        np.array([[0, np.nan], [0, 0]], np.float32),
    ],
)
def test_pixels_that_are_no_displayed_image_are_refused(pixels: NDArray[np.float32], tmp_path: Path) -> None:
    with pytest.raises(InvalidReport):
        capture_of(findings_on(radiograph(tmp_path)), pixels=pixels)


@pytest.mark.parametrize("image", [-1, 1])
def test_an_image_that_the_findings_lack_is_refused(image: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidReport):
        capture_of(findings_on(radiograph(tmp_path)), image=image)
