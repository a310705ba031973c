from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pypdf import PdfReader

from dicom_io.codes import Assessment
from dicom_io.document import build_document
from dicom_io.errors import InvalidReport
from dicom_io.values import Algorithm, StudyFindings
from dicom_io.wording import Language
from tests.factories import radiograph as pixels_of_a_chest
from tests.studies import STUDY_UID, complaints, findings_on, radiograph

CHEST = (pixels_of_a_chest() / 255).astype(np.float32)


def document_of(findings: StudyFindings, **what: Any) -> Dataset:
    file = BytesIO()
    pydicom.dcmwrite(file, build_document(findings, **{"image": 0, "pixels": CHEST, **what}), enforce_file_format=True)
    return pydicom.dcmread(BytesIO(file.getvalue()))


def read(ds: Dataset) -> PdfReader:
    return PdfReader(BytesIO(ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength]), strict=True)


def words_of(ds: Dataset) -> str:
    """The text that a reader could select, on one line."""
    return " ".join(" ".join(page.extract_text() for page in read(ds).pages).split())


def test_every_figure_can_be_read_out_of_it(tmp_path: Path) -> None:
    algorithm = Algorithm(
        name="lenet5",
        version="1.0",
        manufacturer="cxr-worker project",
        parameters=("weights sha256 " + "3f" * 32, "temperature 1.2500", "threshold COVID-19 0.4100"),
    )
    paths = [radiograph(tmp_path, number=number) for number in (1, 2)]
    words = words_of(document_of(findings_on(*paths, algorithm=algorithm)))
    for figure in (
        "73.12 %",
        "10.00 %",
        "16.88 %",
        "5.00 %",
        "90.00 %",
        "41.00 %",
        "50.00 %",
        "35.00 %",
        *algorithm.parameters,
    ):
        assert figure in words
    for said in (
        "URGENT",
        "AI triage urgent: COVID-19 suspected.",
        "Model lenet5 1.0",
        "2026-03-04 05:06 UTC+01:00",
        "Image 2 (PA)",
    ):
        assert said in words
    assert "5.00 %, absent threshold 41.00 %" in words


@pytest.mark.parametrize("language", Language)
def test_it_is_in_the_readers_language_and_says_its_limits(language: Language, tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path), language=language)
    ds, words = document_of(findings), findings.wording
    found = words_of(ds)
    known = ", ".join(words.conditions[finding.condition] for finding in findings.images[0].findings)
    for said in (words.document, words.disclaimer, words.not_ruled_out, words.scope.format(known), words.page.format(1)):
        assert said in found
    assert ds.DocumentTitle == words.document
    assert read(ds).trailer["/Root"]["/Lang"] == words.code.value


def test_every_page_of_a_long_document_carries_the_limits(tmp_path: Path) -> None:
    findings = findings_on(*(radiograph(tmp_path, number=number) for number in range(1, 21)))
    pages = read(document_of(findings)).pages
    assert len(pages) > 1
    assert all(findings.wording.disclaimer in page.extract_text() for page in pages)
    assert f"Image {len(findings.images)} (PA)" in words_of(document_of(findings))


def test_it_shows_the_radiograph(tmp_path: Path) -> None:
    [image] = read(document_of(findings_on(radiograph(tmp_path)))).pages[0].images
    shown = np.asarray(image.image.convert("L").resize(CHEST.shape[::-1]), np.float32) / 255
    assert np.corrcoef(shown.ravel(), CHEST.ravel())[0, 1] > 0.99


def test_nothing_of_the_patient_is_in_the_pages(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = radiograph(
        tmp_path / "other", PatientName="Other^Person", PatientID="P-2", PatientBirthDate="19990909", AccessionNumber="B"
    )
    ds = document_of(findings_on(other))
    assert ds.EncapsulatedDocument == document_of(findings_on(radiograph(tmp_path))).EncapsulatedDocument
    assert (ds.BurnedInAnnotation, ds.PatientID) == ("NO", "P-2")
    assert document_of(findings_on(radiograph(tmp_path, BurnedInAnnotation="YES"))).BurnedInAnnotation == "YES"


def test_equal_arguments_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    findings = findings_on(*(radiograph(tmp_path, number=number) for number in (1, 2)))
    documents = [
        document_of(findings),
        document_of(findings, image=1),
        document_of(replace(findings, assessment=Assessment.NORMAL)),
        document_of(replace(findings, images=tuple(replace(image, undetermined=True) for image in findings.images))),
    ]
    assert documents[0] == document_of(findings)
    assert len({ds.EncapsulatedDocument for ds in documents}) == len(documents)


def test_text_that_looks_like_markup_is_written_as_it_is(tmp_path: Path) -> None:
    assert "a < b & <b>c" in words_of(document_of(findings_on(radiograph(tmp_path), impression="a < b & <b>c")))


def test_the_object_says_what_it_is_and_what_it_comes_from(tmp_path: Path) -> None:
    ds = document_of(findings_on(radiograph(tmp_path), radiograph(tmp_path, number=2)))
    assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert (ds.SeriesNumber, ds.Modality, ds.MIMETypeOfEncapsulatedDocument) == (9008, "DOC", "application/pdf")
    assert ds.ConceptNameCodeSequence[0].CodeValue == "18748-4"
    assert [item.ReferencedSOPInstanceUID for item in ds.SourceInstanceSequence] == [f"{STUDY_UID}.1.1", f"{STUDY_UID}.2.2"]


@pytest.mark.parametrize("language", Language)
def test_dciodvfy_has_nothing_to_say_of_it(language: Language, tmp_path: Path) -> None:
    assert complaints(document_of(findings_on(radiograph(tmp_path), language=language)), tmp_path) == []


@pytest.mark.parametrize("what", [{"image": 1}, {"pixels": CHEST * 2}])
def test_what_cannot_be_shown_is_refused(what: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidReport):
        document_of(findings_on(radiograph(tmp_path)), **what)
