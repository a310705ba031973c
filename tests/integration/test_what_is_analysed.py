"""The whole gate, headers and pixels, on real files and on made ones: what is analysed, and why the rest is not."""

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from cxr_models.gate import FrontalGate
from cxr_models.predict import Predictor
from dicom_io.eligibility import judge
from dicom_io.errors import DicomError
from dicom_io.header import read_header
from dicom_io.pixels import Correction, read_image
from tests.factories import data_folder, dicom_folder, make_dx, radiograph, write
from tests.fakes import make_site, request_for, stored_instance, take_in
from worker import pipeline
from worker.db import analyses
from worker.db.database import Database
from worker.demo.phantom import synthetic_radiograph
from worker.engine import Gate, LocalEngine
from worker.findings import study_findings
from worker.steps.examine import ExaminedImage, examine
from worker.steps.report import Pictures
from worker.steps.select import SelectedImage, select
from worker.values import ImageOutcome

Bytes = NDArray[np.uint8]


@cache
def _gate() -> FrontalGate:
    return FrontalGate.load()


def _judged(ds: Dataset, *, gate: FrontalGate | None = None) -> ExaminedImage | ImageOutcome:
    selected = SelectedImage(instance=stored_instance(), ds=ds, verdict=judge(ds))
    assert selected.verdict.eligible or selected.verdict.doubtful, selected.verdict
    return examine(selected, gate or _gate())


def _passed(ds: Dataset) -> ExaminedImage:
    outcome = _judged(ds)
    assert isinstance(outcome, ExaminedImage), outcome
    return outcome


def _refused(ds: Dataset) -> str:
    outcome = _judged(ds)
    assert isinstance(outcome, ImageOutcome), outcome
    assert (outcome.eligible, outcome.answer) == (False, None)
    assert outcome.reason.endswith(".")
    return outcome.reason_code


def _film(number: int = 0, source: str = "covid-nih-mix/No_findings") -> Bytes:
    file = sorted((data_folder() / source).iterdir())[number]
    return np.asarray(Image.open(file).convert("L"))


def _silent(ds: Dataset, *keywords: str) -> Dataset:
    for keyword in keywords or ("BodyPartExamined", "AnatomicRegionSequence", "ViewPosition", "ViewCodeSequence"):
        if keyword in ds:
            delattr(ds, keyword)
    return ds


# real files


def _outcome(path: Path) -> str:
    try:
        selected = select(stored_instance(path=path))
        examined = examine(selected, _gate()) if isinstance(selected, SelectedImage) else selected
    except DicomError:
        return "undecodable"
    return examined.reason_code if isinstance(examined, ImageOutcome) else "analysed"


def test_of_the_real_files_every_frontal_chest_is_analysed_and_nothing_else() -> None:
    with (dicom_folder() / "manifest.csv").open(encoding="utf-8") as file:
        frontal = {row["local_name"] for row in csv.DictReader(file) if row["category"] == "chest-frontal"}
    outcomes = {path.name: _outcome(path) for path in dicom_folder().glob("*.dcm")}
    assert {name for name, outcome in outcomes.items() if outcome == "analysed"} == frontal
    assert "undecodable" not in outcomes.values()


def test_a_real_film_with_the_wrong_polarity_is_shown_and_analysed_as_its_twin_with_the_right_one() -> None:
    right = dicom_folder() / "chest_rsna_pa_jpeg.dcm"
    wrong = dicom_folder() / "chest_rsna_pa_jpeg_fakemono1.dcm"
    examined = _passed(read_header(wrong))
    assert examined.correction == Correction(inverted=True)
    assert any("polarity" in note for note in examined.notes)
    np.testing.assert_allclose(examined.picture.pixels, read_image(right).pixels, atol=1 / 255)
    np.testing.assert_array_equal(examined.picture.pixels, read_image(wrong, examined.correction).pixels)


@pytest.mark.parametrize(
    "name",
    [
        *("dog_thorax_lateral_dx", "extremity_fuji_rg3_rle", "hip_fuji_rg2_jpll", "mammo_ge_gh133", "teeth_modalitylut"),
        *("mr_ge_knee", "b_j2k_pixelrep_mismatch", "ot_abdomen_pelvis_scout_nopreamble"),
    ],
)
def test_a_real_picture_of_something_else_is_refused_though_its_header_says_frontal_chest(name: str) -> None:
    pixels = read_image(dicom_folder() / f"{name}.dcm").pixels
    assert _refused(make_dx((pixels * 255).astype(np.uint8))) in {"not_like_chest", "saturated"}


def test_a_real_scout_sent_as_a_radiograph_is_told_by_what_only_scanners_write() -> None:
    ds = read_header(dicom_folder() / "ct_ge_chest_scout_jpll.dcm")
    claimed = make_dx()
    for keyword in ("Modality", "SOPClassUID", "ViewPosition", "ViewCodeSequence", "ImageType"):
        setattr(ds, keyword, claimed[keyword].value)
    verdict = judge(ds)
    assert (verdict.eligible, verdict.code) == (False, "localizer")


@pytest.mark.parametrize("source", ["covid-nih-mix/Pneumonia", "covid-nih-mix/Covid-19", "kermany/Normal", "kermany/Pneumonia"])
def test_real_films_pass_whether_their_header_says_what_they_are_or_nothing(source: str) -> None:
    for number in range(6):
        assert _passed(make_dx(_film(number, source))).correction == Correction()
        assert _passed(_silent(make_dx(_film(number, source)))).notes[0].startswith("taken for a frontal chest radiograph")


# made files whose headers say DX, CHEST, PA


def _bars() -> Bytes:
    return np.repeat(np.linspace(0, 255, 8), 64).astype(np.uint8)[None, :].repeat(512, axis=0)


def _wedge_and_pairs() -> Bytes:
    picture = np.linspace(0, 255, 512)[:, None].repeat(512, axis=1)
    picture[100:200, 100:300] = 255 * (np.arange(200) // 3 % 2)
    picture[250:400, 60:450] = np.repeat(np.linspace(255, 0, 10), 39)
    return picture.astype(np.uint8)


def _grid() -> Bytes:
    y, x = np.mgrid[:600, :500]
    return np.where((x % 50 < 3) | (y % 50 < 3) | (np.abs(np.hypot(x - 250, y - 300) - 200) < 4), 255, 60).astype(np.uint8)


def _page() -> Bytes:
    page = Image.new("L", (700, 900), 255)
    pen = ImageDraw.Draw(page)
    for line in range(40):
        pen.text((40, 20 + 22 * line), f"Line {line} of a letter that was scanned as CHEST PA", fill=0)
    return np.asarray(page)


def _phantom() -> Bytes:
    y, x = np.mgrid[:512, :512]
    holes = sum(np.hypot(x - cx, y - cy) < r for cx, cy, r in ((150, 150, 40), (350, 160, 25), (170, 360, 15), (350, 350, 8)))
    return np.where(holes, 40, 200).astype(np.uint8)


def _noise() -> Bytes:
    return np.random.default_rng(5).integers(0, 256, (512, 512), dtype=np.uint8)


@pytest.mark.parametrize("draw", [_bars, _wedge_and_pairs, _grid, _page, _phantom, _noise])
def test_a_test_pattern_labelled_chest_is_refused(draw: Any) -> None:
    assert _refused(make_dx(draw())) in {"not_like_chest", "saturated"}
    assert _refused(_silent(make_dx(draw()))) in {"body_part_missing", "saturated"}


@pytest.mark.parametrize("number", range(4))
def test_a_scout_of_the_whole_trunk_is_refused(number: int) -> None:
    film = Image.fromarray(_film(number, "covid-nih-mix/No_findings")).resize((300, 260))
    y, x = np.mgrid[:900, :512]
    trunk = 120.0 * ((np.abs(x - 256) / 165) ** 4 + (np.abs(y - 480) / 430) ** 6 < 1) + 25.0 * (np.abs(x - 256) < 20)
    trunk[80:340, 106:406] = np.asarray(film) * 0.6
    noise = np.random.default_rng(number).normal(0, 6, trunk.shape)
    assert _refused(make_dx(np.clip(trunk + noise, 0, 255).astype(np.uint8))) == "not_like_chest"


def test_two_films_on_one_picture_are_refused() -> None:
    two = np.hstack([np.asarray(Image.fromarray(_film(number)).resize((400, 480))) for number in (3, 4)])
    assert _refused(make_dx(two)) == "not_like_chest"


@pytest.mark.parametrize("number", range(4))
def test_a_film_with_text_burned_in_is_analysed(number: int) -> None:
    film = Image.fromarray(_film(number))
    pen, font = ImageDraw.Draw(film), ImageFont.load_default(22)
    for place, text in (((8, 8), "TEST^PATIENT 1970-01-01"), ((8, 40), "PORTABLE AP ERECT"), ((300, 470), "120 kV  R")):
        pen.text(place, text, fill=255, font=font)
    assert _passed(make_dx(np.asarray(film))).correction == Correction()


def test_mirrored_films_are_analysed_as_they_are_with_a_note_on_some_and_others_have_none() -> None:
    noted = {
        is_mirrored: sum(
            any("mirrored" in note for note in _passed(make_dx(_film(number)[:, ::-1] if is_mirrored else _film(number))).notes)
            for number in range(12)
        )
        for is_mirrored in (True, False)
    }
    assert noted[True] >= 1
    assert noted[False] == 0


# what the pixels tell against the header, or where it says nothing


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_film_that_lies_turned_is_stood_up_where_the_header_names_no_orientation(turns: int) -> None:
    film = _film(2)
    examined = _passed(_silent(make_dx(np.ascontiguousarray(np.rot90(film, -turns))), "PatientOrientation"))
    assert examined.correction == Correction(quarter_turns=turns)
    assert any("stood up" in note for note in examined.notes)
    np.testing.assert_allclose(examined.picture.pixels, film / 255, atol=1e-6)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_film_that_lies_otherwise_than_its_header_says_is_refused(turns: int) -> None:
    ds = make_dx(np.ascontiguousarray(np.rot90(_film(2), -turns)))
    assert list(ds.PatientOrientation) == ["L", "F"]
    assert _refused(ds) == "turned"


def test_a_film_that_is_turned_and_inverted_is_put_right_in_both() -> None:
    film = _film(2)
    examined = _passed(_silent(make_dx(np.ascontiguousarray(255 - np.rot90(film, 2))), "PatientOrientation"))
    assert examined.correction == Correction(quarter_turns=2, inverted=True)
    np.testing.assert_allclose(examined.picture.pixels, film / 255, atol=1e-6)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_what_was_corrected_is_recorded_and_what_reports_show_is_what_was_analysed(database: Database, tmp_path: Path) -> None:
    film = _film(2)
    engine = LocalEngine(Predictor.load("lenet5", device="cpu"), decode_threads=1, gate=Gate(pixels=_gate()))
    site = make_site(database, tmp_path / "var")
    parts = replace(site.parts, engine=lambda: engine)
    ds = _silent(make_dx(np.ascontiguousarray(255 - np.rot90(film, 2))), "PatientOrientation")
    take_in(request_for(ds), parts)
    site.clock.go_on(seconds=60)
    pipeline.complete_studies(parts)
    pipeline.analyse_studies(parts)
    engine.close()
    with database.read() as connection:
        (study,) = analyses.analysed(connection, now=site.clock(), limit=1, data_dir=parts.data_dir)
    assert study.images[0].correction == Correction(quarter_turns=2, inverted=True)
    np.testing.assert_allclose(Pictures(study, lambda: engine).pixels, film / 255, atol=1e-6)
    assert study_findings(study, name="result", predecessor=None).images[0].correction == study.images[0].correction


def test_without_the_pixel_gate_headers_are_believed_and_a_silent_one_is_a_refusal() -> None:
    def by_header(ds: Dataset) -> ExaminedImage | ImageOutcome:
        return examine(SelectedImage(instance=stored_instance(), ds=ds, verdict=judge(ds)), None)

    assert isinstance(by_header(make_dx(_grid())), ExaminedImage)
    outcome = by_header(_silent(make_dx(_film()), "ViewPosition", "ViewCodeSequence"))
    assert isinstance(outcome, ImageOutcome)
    assert outcome.reason_code == "view_missing"


@pytest.mark.parametrize(
    ("pixels", "code"),
    [
        (np.zeros((300, 300)), "empty"),
        (np.full((300, 300), 140), "empty"),
        (np.random.default_rng(0).integers(138, 143, (300, 300)), "empty"),
        (np.where(np.mgrid[:300, :300].sum(axis=0) % 100 < 50, 0, 255), "saturated"),
        (np.pad(np.asarray(radiograph(120, 100)), 100), "too_small"),
    ],
    ids=["black", "constant", "nearly constant", "black and white", "little left"],
)
def test_a_picture_on_which_there_is_nothing_to_see_is_refused_by_plain_measures(pixels: Bytes, code: str) -> None:
    assert _refused(make_dx(pixels.astype(np.uint8))) == code


def test_the_drawn_chests_of_the_demonstration_and_the_tests_pass(tmp_path: Path) -> None:
    for seed in range(4):
        for pixels in (synthetic_radiograph(seed), radiograph(seed=seed)):
            path = write(make_dx(pixels), tmp_path / "drawn.dcm")
            assert _passed(read_header(path)).correction == Correction()
