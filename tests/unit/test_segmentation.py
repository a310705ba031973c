from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.codes import Condition
from dicom_io.errors import InvalidReport
from dicom_io.pixels import Correction, read_image
from dicom_io.quiet import quietly
from dicom_io.segmentation import build_segmentation
from dicom_io.values import Saliency
from dicom_io.wording import Language
from tests.factories import make_dx, write
from tests.studies import complaints, findings_on, radiograph, real_radiographs

ROWS, COLUMNS = 60, 41


def slope(rows: int = 32, columns: int = 32) -> Saliency:
    """A map that is different in every row and column."""
    down, across = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    return Saliency(condition=Condition.COVID_19, map=((down + across**2) / 2).astype(np.float32))


def film(folder: Path, **attributes: Any) -> Path:
    """A film of `ROWS` and `COLUMNS`, black but for one white pixel in row 10, column 5 of the file."""
    cells = np.zeros((ROWS, COLUMNS), np.uint8)
    cells[10, 5] = 255
    ds = make_dx(cells)
    with quietly:
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
    return write(ds, folder / "film.dcm")


def values_of(ds: Dataset) -> NDArray[np.float64]:
    """The map as a stranger reads it: highdicom, by the image that it is of."""
    file = BytesIO()
    pydicom.dcmwrite(file, ds, enforce_file_format=True)
    read = highdicom.seg.segread(BytesIO(file.getvalue()))
    (uid,) = [image[2] for image in read.get_source_image_uids()]
    pixels = read.get_pixels_by_source_instance([uid], ignore_spatial_locations=True, rescale_fractional=True)
    values: NDArray[np.float64] = pixels[0, ..., 0]
    return values


def test_highdicom_reads_the_map_back_in_the_rows_and_columns_of_the_file(tmp_path: Path) -> None:
    saliency = slope(ROWS, COLUMNS)
    found = values_of(build_segmentation(findings_on(film(tmp_path)), image=0, saliency=saliency))
    assert found.shape == (ROWS, COLUMNS)
    assert np.abs(found - saliency.map).max() <= 1 / 255


def test_a_coarse_map_is_spread_over_the_whole_film(tmp_path: Path) -> None:
    found = values_of(build_segmentation(findings_on(film(tmp_path)), image=0, saliency=slope()))
    rows, columns = (np.arange(ROWS) + 0.5) / ROWS, (np.arange(COLUMNS) + 0.5) / COLUMNS
    assert np.abs(found - (rows[:, None] + columns[None] ** 2) / 2).max() < 1 / 20


@pytest.mark.parametrize(
    ("orientation", "correction"),
    [
        (["L", "F"], Correction()),
        (["R", "F"], Correction()),
        (["L", "H"], Correction()),
        (["R", "H"], Correction()),
        (["F", "L"], Correction()),
        (None, Correction(quarter_turns=1)),
        (None, Correction(quarter_turns=2, inverted=True)),
    ],
)
def test_what_is_marked_on_the_film_as_displayed_is_marked_on_the_stored_one(
    orientation: list[str] | None, correction: Correction, tmp_path: Path
) -> None:
    path = film(tmp_path, PatientOrientation=orientation)
    displayed = read_image(path, Correction(quarter_turns=correction.quarter_turns)).pixels
    saliency = Saliency(condition=Condition.COVID_19, map=displayed)
    ds = build_segmentation(findings_on(path), image=0, saliency=saliency, correction=correction)
    assert np.argwhere(values_of(ds) > 0.5).tolist() == [[10, 5]]
    assert list(ds.PatientOrientation or ()) == (orientation or [])


def test_it_says_whose_map_of_what_it_is(tmp_path: Path) -> None:
    paths = radiograph(tmp_path), radiograph(tmp_path, number=2)
    ds = build_segmentation(findings_on(*paths), image=1, saliency=slope())
    (segment,) = ds.SegmentSequence
    (kind,) = segment.SegmentedPropertyTypeCodeSequence
    (condition,) = kind.SegmentedPropertyTypeModifierCodeSequence
    assert (kind.CodeValue, condition.CodeValue) == ("130404", "840544004")
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("lenet5", "1.0")
    assert "weights sha256 3f00" in algorithm.AlgorithmParameters
    assert segment.SegmentLabel == "Heat map: what spoke for COVID-19"
    assert "not where disease is. AI-generated." in segment.SegmentDescription
    (series,) = ds.ReferencedSeriesSequence
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == pydicom.dcmread(paths[1]).SOPInstanceUID
    assert (ds.SeriesNumber, ds.Modality, ds.SegmentationType) == (9005, "SEG", "FRACTIONAL")


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("condition", Condition)
def test_dciodvfy_has_nothing_to_say_of_it(language: Language, condition: Condition, tmp_path: Path) -> None:
    path = radiograph(tmp_path, PatientOrientation=None if condition is Condition.NORMAL else ["R", "F"])
    saliency = Saliency(condition=condition, map=slope().map)
    ds = build_segmentation(findings_on(path, language=language), image=0, saliency=saliency)
    assert complaints(ds, tmp_path) == []


def test_dciodvfy_has_nothing_to_say_of_it_on_real_films(tmp_path: Path) -> None:
    inherited = "Missing attribute or value that would be needed to build DICOMDIR", "Retired Person Name form"
    for path in real_radiographs():
        ds = build_segmentation(findings_on(path), image=0, saliency=slope())
        said = [line for line in complaints(ds, tmp_path) if not any(reason in line for reason in inherited)]
        assert said == [], path.name


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path))
    one, other = BytesIO(), BytesIO()
    for file in (one, other):
        pydicom.dcmwrite(file, build_segmentation(findings, image=0, saliency=slope()), enforce_file_format=True)
    assert one.getvalue() == other.getvalue()


@pytest.mark.parametrize(("image", "value"), [(1, 0.5), (-1, 0.5), (0, 1.5), (0, np.nan)])
def test_what_is_no_map_of_an_image_of_the_findings_is_refused(image: int, value: float, tmp_path: Path) -> None:
    saliency = Saliency(condition=Condition.COVID_19, map=np.full((4, 4), value, np.float32))
    with pytest.raises(InvalidReport):
        build_segmentation(findings_on(radiograph(tmp_path)), image=image, saliency=saliency)
