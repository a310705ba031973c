from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_io.capture import build_capture
from dicom_io.codes import Condition
from dicom_io.errors import InvalidReport
from dicom_io.film import Shown, draw_film, draw_scale
from dicom_io.heatmap import build_heatmap
from dicom_io.pixels import read_image
from dicom_io.values import Saliency, StudyFindings
from dicom_io.wording import Language
from tests.factories import make_dx, write
from tests.studies import complaints, findings_on, radiograph

FILM = 896
GREY = np.full((300, 300), 0.4, np.float32)


def spot(row: int, column: int, *, condition: Condition = Condition.COVID_19) -> Saliency:
    """A map of 32 x 32 cells with one hill."""
    down, across = np.mgrid[:32, :32]
    return Saliency(condition=condition, map=np.exp(-((down - row) ** 2 + (across - column) ** 2) / 8).astype(np.float32))


def page_of(findings: StudyFindings, saliency: Saliency, *, pixels: NDArray[np.float32] = GREY) -> NDArray[np.uint8]:
    page: NDArray[np.uint8] = build_heatmap(findings, image=0, pixels=pixels, saliency=saliency).pixel_array
    return page


def colourfulness(picture: NDArray[np.uint8]) -> NDArray[np.int_]:
    """How far each pixel is from grey."""
    return np.ptp(picture.astype(np.int_), axis=2)


def drawn(saliency: Saliency, pixels: NDArray[np.float32] = GREY) -> NDArray[np.uint8]:
    return np.asarray(draw_film(Shown(number=0, pixels=pixels, saliency=saliency), (FILM, FILM)))


@pytest.mark.parametrize(("row", "column"), [(6, 6), (6, 25), (16, 10), (25, 25)])
def test_the_hill_of_the_map_lies_on_its_place_in_the_film(row: int, column: int, tmp_path: Path) -> None:
    film = page_of(findings_on(radiograph(tmp_path)), spot(row, column))[:FILM, :FILM]
    rows, columns = np.nonzero(colourfulness(film) > 0.95 * colourfulness(film).max())
    assert rows.mean() / FILM * 32 == pytest.approx(row + 0.5, abs=0.5)
    assert columns.mean() / FILM * 32 == pytest.approx(column + 0.5, abs=0.5)


def test_the_map_lies_right_over_a_film_that_was_stored_mirrored_and_upside_down(tmp_path: Path) -> None:
    cells = np.full((320, 320), 50, np.uint8)
    cells[240:260, 60:80] = 250  # as displayed, rows 60 to 80 and columns 240 to 260
    ds = make_dx(cells)
    ds.PatientOrientation = ["R", "H"]
    pixels = read_image(write(ds, tmp_path / "turned.dcm")).pixels
    page = page_of(findings_on(radiograph(tmp_path)), spot(7, 25), pixels=pixels)[:FILM, :FILM]
    brightest = np.unravel_index(page.sum(axis=2).argmax(), (FILM, FILM))
    most_coloured = np.unravel_index(colourfulness(page).argmax(), (FILM, FILM))
    assert np.abs(np.subtract(brightest, most_coloured)).max() < 2 * FILM / 32


def test_what_spoke_little_leaves_the_film_as_it_is() -> None:
    ramp = np.linspace(0, 1, 300 * 300, dtype=np.float32).reshape(300, 300)
    plain = np.asarray(draw_film(Shown(number=0, pixels=ramp), (FILM, FILM)))
    covered = drawn(spot(16, 16), ramp)
    assert (covered[:200] == plain[:200, :, None]).all()
    assert (covered[-200:] == plain[-200:, :, None]).all()
    assert colourfulness(covered[456:468, 456:468]).min() > 40


def test_the_film_shows_through_where_the_map_is_highest() -> None:
    stripes = np.tile(np.repeat(np.array([0.2, 0.8], np.float32), 15), 10)[None].repeat(300, axis=0)
    everywhere = Saliency(condition=Condition.COVID_19, map=np.ones((32, 32), np.float32))
    contrast = np.ptp(drawn(everywhere, stripes)[450].sum(axis=1) / 3)
    assert contrast >= 0.45 * np.ptp(
        drawn(Saliency(condition=Condition.COVID_19, map=np.zeros((8, 8), np.float32)), stripes)[450]
    )


def test_the_colours_rise_in_brightness_by_even_steps_so_that_no_hue_must_be_told_apart() -> None:
    scale = np.asarray(draw_scale((256, 1)))[0, 60:].astype(float)
    luminance = scale @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > -1.5).all()
    assert luminance[-1] - luminance[0] > 40
    assert (np.abs(np.diff(scale, axis=0)).max(axis=1) < 6).all()


@pytest.mark.parametrize("language", Language)
def test_the_page_says_which_condition_the_map_speaks_for(language: Language, tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path), language=language)
    pages = [
        page_of(findings, spot(16, 16)),
        page_of(findings, spot(16, 16, condition=Condition.PNEUMONIA)),
        page_of(findings, Saliency(condition=Condition.COVID_19, map=np.zeros((32, 32), np.float32))),
        page_of(replace(findings, language=next(other for other in Language if other != language)), spot(16, 16)),
    ]
    assert len({page[FILM:].tobytes() for page in pages}) == len(pages)


def test_beside_the_film_it_is_the_page_of_the_capture(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path))
    capture, heatmap = (
        build_capture(findings, image=0, pixels=GREY),
        build_heatmap(findings, image=0, pixels=GREY, saliency=spot(9, 9)),
    )
    assert (capture.pixel_array[:900, FILM:] == heatmap.pixel_array[:900, FILM:]).all()
    assert (capture.pixel_array[-162:] == heatmap.pixel_array[-162:]).all()
    assert heatmap.SeriesNumber == 9004
    assert (
        len({capture.SOPInstanceUID, heatmap.SOPInstanceUID})
        == len({capture.SeriesInstanceUID, heatmap.SeriesInstanceUID})
        == 2
    )
    assert heatmap.DerivationDescription.startswith("Image under the map of what moved lenet5 1.0")


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path))
    one, other = (build_heatmap(findings, image=0, pixels=GREY, saliency=spot(3, 4)) for _ in range(2))
    assert one == other
    assert one.PixelData == other.PixelData


@pytest.mark.parametrize("value", [1.5, -0.5, np.nan])
def test_a_map_that_is_not_between_0_and_1_is_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(InvalidReport):
        page_of(
            findings_on(radiograph(tmp_path)), Saliency(condition=Condition.COVID_19, map=np.full((4, 4), value, np.float32))
        )


def test_dciodvfy_has_nothing_to_say_of_it(tmp_path: Path) -> None:
    ds = build_heatmap(findings_on(radiograph(tmp_path)), image=0, pixels=GREY, saliency=spot(3, 4))
    assert complaints(ds, tmp_path) == []
