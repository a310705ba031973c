"""What a radiologist sees: the worker's objects in OHIF and in Orthanc's own viewer, in a real browser.

With CXR_PICTURES=FOLDER what is seen is written there (`make pictures`).
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageFilter
from playwright.sync_api import Browser, Page
from pydicom.dataset import Dataset

from dicom_io.codes import Condition
from dicom_io.kinds import Kind
from dicom_io.wording import Language, wording_in
from dicom_io.wrap import Exposure, Patient
from tests.factories import TAKEN_AT, make_dx, study_uid, write
from tests.requirements import need
from tests.servers import Orthanc, destination, orthanc, storescu, wait_for, worker
from tests.viewer import (
    PATIENCE_SECONDS,
    chromium,
    keep_picture,
    ohif,
    open_page,
    orthanc_plugins,
    pick_in_ohif,
    wait_until_shown,
)
from worker.demo.phantom import synthetic_radiograph
from worker.findings import MEANINGS

pytestmark = pytest.mark.xdist_group("browser")

STUDY_UID = study_uid("seen")
OUTPUTS = ("sr", "capture", "text_sr", "heatmap")

NOTHING_CUT_OFF = "pane => [...pane.querySelectorAll('*')].every(each => each.scrollWidth <= each.clientWidth)"

Keep = Callable[[Page, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A study in the PACS, with what the worker made of it in two languages."""

    pacs: Orthanc
    probabilities: dict[Condition, float]
    objects: dict[str, tuple[str, Dataset]]
    """By the description of their series: Orthanc's id, and the object."""

    def of(self, kind: Kind, language: Language) -> tuple[str, Dataset]:
        return self.objects[wording_in(language).series[kind]]


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reported]:
    need("Orthanc")
    need("storescu")
    folder = tmp_path_factory.mktemp("seen")
    exposure = Exposure(study_uid=STUDY_UID, taken_at=TAKEN_AT, accession_number="ACC-SEEN")
    patient = Patient(name="TEST^SEEN", patient_id="TEST-0009", birth_date="19610203", sex="F")
    # Without its noise, which would make large pictures.
    pixels = np.asarray(Image.fromarray(synthetic_radiograph(11)).filter(ImageFilter.GaussianBlur(3)))
    film = write(make_dx(pixels, exposure=exposure, patient=patient), folder / "film.dcm")
    with orthanc(folder, plugins=orthanc_plugins()) as pacs:
        config = "[study]\nquiet_seconds = 0.5\n" + "".join(
            f'{destination(pacs, outputs=OUTPUTS, name=f"in_{language}")}language = "{language}"\n' for language in Language
        )
        with worker(folder, config) as a_worker:
            a_worker.start()
            for port in (pacs.dicom_port, a_worker.port):
                assert storescu(port, film).returncode == 0

            def delivered() -> dict[str, Any] | None:
                study = a_worker.study(STUDY_UID)
                return study if study and study["state"] == "delivered" else None

            study = wait_for(delivered, "the study is delivered", seconds=PATIENCE_SECONDS)
            assert a_worker.stop() == 0
        (prediction,) = study["images"][0]["predictions"]
        objects = {}
        for each in [*pacs.instances_of(STUDY_UID, "SR"), *pacs.instances_of(STUDY_UID, "OT")]:
            ds = pydicom.dcmread(BytesIO(pacs.get(f"/instances/{each}/file")))
            objects[ds.SeriesDescription] = (each, ds)
        yield Reported(
            pacs=pacs,
            probabilities={MEANINGS[label].condition: value for label, value in prediction["probabilities"].items()},
            objects=objects,
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def in_ohif(browser: Browser, reported: Reported) -> Iterator[Page]:
    """The study, opened in OHIF."""
    with ohif(reported.pacs) as address:
        yield open_page(browser, f"{address}/viewer?StudyInstanceUIDs={STUDY_UID}")


@pytest.fixture(scope="module")
def keep() -> Keep:
    """Keep a picture of a page under a name, if pictures are wanted."""
    folder = os.environ.get("CXR_PICTURES")
    return lambda page, name: keep_picture(page, Path(folder) / f"{name}.png") if folder else None


@pytest.mark.parametrize("language", Language)
def test_ohif_shows_every_class_the_impression_and_the_limits_as_text(
    language: Language, reported: Reported, in_ohif: Page, keep: Keep
) -> None:
    words = wording_in(language)
    viewport = pick_in_ohif(in_ohif, words.series[Kind.TEXT_SR])
    viewport.get_by_text(words.disclaimer).wait_for()
    text = " ".join(viewport.inner_text().split())

    for condition, probability in reported.probabilities.items():
        said = rf"{words.conditions[condition]}: \w+, {probability * 100:.1f} %"
        assert re.search(said, text), (said, text)
    for written in _texts(reported.of(Kind.TEXT_SR, language)[1]):
        assert written in text
    assert viewport.evaluate(NOTHING_CUT_OFF)
    if language is Language.ENGLISH:
        keep(in_ohif, "text_report")


def _texts(item: Dataset) -> Iterator[str]:
    """Every text of a report, the impression among them."""
    if "TextValue" in item:
        yield " ".join(item.TextValue.split())
    for below in item.get("ContentSequence", ()):
        yield from _texts(below)


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("kind", [Kind.CAPTURE, Kind.HEATMAP])
def test_ohif_shows_a_page_as_it_was_drawn(
    kind: Kind, language: Language, reported: Reported, in_ohif: Page, keep: Keep
) -> None:
    _, ds = reported.of(kind, language)
    viewport = pick_in_ohif(in_ohif, ds.SeriesDescription)

    wait_until_shown(viewport.locator("canvas"), ds.pixel_array)

    if language is Language.ENGLISH:
        keep(in_ohif, kind)


def test_orthancs_own_viewer_shows_the_page_as_it_was_drawn(browser: Browser, reported: Reported, keep: Keep) -> None:
    instance, ds = reported.of(Kind.CAPTURE, Language.ENGLISH)
    series = reported.pacs.get(f"/instances/{instance}/series")["ID"]
    page = open_page(browser, f"http://127.0.0.1:{reported.pacs.http_port}/web-viewer/app/viewer.html?series={series}")

    wait_until_shown(page.locator("#dicomImage canvas"), ds.pixel_array)

    keep(page, "orthanc")
