from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import ImageFont
from pydicom.dataset import Dataset

from dicom_io.capture import build_capture
from dicom_io.codes import Assessment, Condition
from dicom_io.errors import InvalidReport
from dicom_io.page import HEIGHT, WIDTH
from dicom_io.panel import FONT, SMALL, wrapped
from dicom_io.report import build_structured_report
from dicom_io.standing import Correction
from dicom_io.values import ClassFinding, StudyFindings
from dicom_io.wording import Language
from tests.studies import ANALYSED_AT, STUDY_UID, findings_on, radiograph

ORANGE, WHITE, PANEL_COLOUR = (230, 159, 0), (240, 243, 247), (20, 24, 30)
FILM_WIDTH = 896
PANEL = slice(FILM_WIDTH, None)
HEADLINE = slice(0, 180)
LIMITS = 162

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
    top = (len(page) - LIMITS - FILM_WIDTH) // 2
    shown = page[top : top + FILM_WIDTH, :FILM_WIDTH]
    assert (shown == shown[..., :1]).all()
    places = np.minimum((np.arange(FILM_WIDTH) + 0.5) / FILM_WIDTH * 300, 299).astype(int)
    assert np.abs(shown[..., 0] - RAMP[places][:, places] * 255).max() <= 2
    assert not page[:top, :FILM_WIDTH].any()
    assert not page[top + FILM_WIDTH : -LIMITS, :FILM_WIDTH].any()


@pytest.mark.parametrize(("shape", "box"), [((100, 400), (896, 224)), ((400, 100), (248, 990)), ((2048, 2048), (896, 896))])
def test_the_radiograph_keeps_its_aspect(shape: tuple[int, int], box: tuple[int, int], tmp_path: Path) -> None:
    page = page_of(findings_on(radiograph(tmp_path)), pixels=np.ones(shape, np.float32))
    lit = page[:-LIMITS, :FILM_WIDTH].any(axis=2)
    assert (int(lit.any(axis=0).sum()), int(lit.any(axis=1).sum())) == box


@pytest.mark.parametrize("probability", [0.45, 0.7312, 1.0])
def test_a_bar_is_as_long_as_the_probability(probability: float, tmp_path: Path) -> None:
    findings = with_first(
        findings_on(radiograph(tmp_path)), lambda finding: replace(finding, probability=probability, threshold=None)
    )
    orange = has_colour(page_of(findings)[180:, PANEL], ORANGE)
    assert orange.sum(axis=1).max() == pytest.approx(probability * 592, abs=2)


@pytest.mark.parametrize("threshold", [0.2, 0.41, 0.6])
def test_the_threshold_is_marked_where_it_is(threshold: float, tmp_path: Path) -> None:
    findings = with_first(findings_on(radiograph(tmp_path)), lambda finding: replace(finding, threshold=threshold))
    panel = page_of(findings)[180:, PANEL]
    row = has_colour(panel, ORANGE).sum(axis=1).argmax()
    [marks] = np.nonzero(has_colour(panel[row : row + 1], WHITE)[0])
    assert marks.mean() == pytest.approx(24 + threshold * 592, abs=2)


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
        page_of(replace(usual, images=tuple(replace(image, correction=Correction(inverted=True)) for image in usual.images))),
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


def test_a_long_sentence_makes_a_longer_page_and_nothing_is_cut(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path))
    usual, longer, longest = (page_of(replace(findings, impression="word " * count)) for count in (1, 99, 100))
    assert len(usual) == HEIGHT < len(longer)
    for page in (longer, longest):
        assert (page[-LIMITS:] == usual[-LIMITS:]).all()
        assert not (page[-LIMITS - 8 : -LIMITS, PANEL] != PANEL_COLOUR).any()
    assert longest.shape != longer.shape or (longest != longer).any()


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("assessment", Assessment)
def test_every_word_keeps_to_its_place(language: Language, assessment: Assessment, tmp_path: Path) -> None:
    findings = findings_on(
        *(radiograph(tmp_path, number=number) for number in (1, 2, 3)),
        language=language,
        assessment=assessment,
        impression="antidisestablishmentarianism" * 3,
    )
    unsure = replace(findings, images=tuple(replace(image, undetermined=True) for image in findings.images))
    for page in (page_of(findings), page_of(unsure), page_of(findings, image=2)):
        assert (page[:-LIMITS, FILM_WIDTH : FILM_WIDTH + 20] == PANEL_COLOUR).all()
        assert (page[:, -20:] == PANEL_COLOUR).all()
        assert (page[-LIMITS:, :20] == PANEL_COLOUR).all()


def test_capitals_are_nine_pixels_high_where_the_page_is_512_wide() -> None:
    _, top, _, bottom = ImageFont.truetype(FONT, SMALL).getbbox("E", anchor="ls")
    assert (bottom - top) * 512 / WIDTH >= 9


def test_lines_break_between_words_and_never_before_the_percent_sign() -> None:
    text = "Normal 10 %, Pneumonia 17 %"
    width = round(ImageFont.truetype(FONT, SMALL).getlength("Normal 10"))
    assert wrapped(text, SMALL, width) == ["Normal", "10 %,", "Pneumoni", "a 17 %"]
    assert "".join(wrapped(text, SMALL, width)).replace(" ", "") == text.replace(" ", "")


def test_what_is_flagged_on_an_image_that_is_not_shown_stands_out(tmp_path: Path) -> None:
    findings = findings_on(*(radiograph(tmp_path, number=number) for number in (1, 2)), assessment=Assessment.UNDETERMINED)
    assert has_colour(page_of(findings, image=1), ORANGE).sum() > 10_000
    calm = with_first(findings, lambda finding: replace(finding, present=False))
    assert not has_colour(page_of(calm, image=1), ORANGE).any()


def test_no_flagged_image_is_among_those_that_are_only_counted(tmp_path: Path) -> None:
    usual = findings_on(*(radiograph(tmp_path, number=number) for number in range(1, 10)))
    last_flagged = replace(usual, images=(*usual.images[1:], usual.images[0]), assessment=Assessment.UNDETERMINED)
    assert has_colour(page_of(last_flagged), ORANGE).sum() > 10_000


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
    assert (ds.Rows, ds.Columns, ds.PhotometricInterpretation) == (1152, 1536, "RGB")


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
