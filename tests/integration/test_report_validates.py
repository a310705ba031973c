import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from dicom_io.capture import build_capture
from dicom_io.codes import Assessment, Condition
from dicom_io.document import build_document
from dicom_io.errors import InvalidReport
from dicom_io.heatmap import build_heatmap
from dicom_io.key_object import build_key_object
from dicom_io.not_analysed import build_not_analysed_report
from dicom_io.presentation_state import build_presentation_state
from dicom_io.report import build_structured_report
from dicom_io.segmentation import build_segmentation
from dicom_io.text_report import build_text_report
from dicom_io.values import ObjectReference, Saliency, SeriesUID, SOPClassUID, SOPInstanceUID, StudyFindings
from dicom_io.wording import Language
from tests.factories import dicom_folder
from tests.pixelmed import pixelmed_says
from tests.requirements import need
from tests.studies import NAMES, complaints, findings_on, named_radiograph, radiograph, real_radiographs, refusal_of

INHERITED = (
    "Missing attribute or value that would be needed to build DICOMDIR",  # a type 2 attribute that the source leaves empty
    "Retired Person Name form",  # a name without "^", as de-identified images have
)

GREY = np.full((300, 200), 0.5, np.float32)
SALIENCY = Saliency(condition=Condition.COVID_19, map=np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))


def not_analysed(findings: StudyFindings) -> Dataset:
    paths = [image.path for image in findings.images]
    predecessor, language = findings.predecessor, findings.language
    return build_not_analysed_report(refusal_of(*paths, predecessor=predecessor, language=language))


REPORTS: dict[str, Callable[[StudyFindings], Dataset]] = {
    "comprehensive": build_structured_report,
    "comprehensive-3d": lambda findings: build_structured_report(findings, sop_class=Comprehensive3DSRStorage),
    "text": build_text_report,
    "not-analysed": not_analysed,
    "key-object": build_key_object,
}
"""What has a content tree."""
IN_WORDS = {name: build for name, build in REPORTS.items() if not name.startswith("comprehensive")}
OUTPUTS: dict[str, Callable[[StudyFindings], Dataset]] = {
    **REPORTS,
    "capture": lambda findings: build_capture(findings, image=0, pixels=GREY),
    "heatmap": lambda findings: build_heatmap(findings, image=0, pixels=GREY, saliency=SALIENCY),
    "segmentation": lambda findings: build_segmentation(findings, image=0, saliency=SALIENCY),
    "presentation-state": build_presentation_state,
    "pdf": lambda findings: build_document(findings, image=0, pixels=GREY),
}
CHARACTER_SETS = [*NAMES, "missing"]


def real_images() -> list[Path]:
    return real_radiographs()


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("character_set", CHARACTER_SETS)
def test_dciodvfy_has_nothing_to_say_of_an_object_in_any_character_set(output: str, character_set: str, tmp_path: Path) -> None:
    assert complaints(OUTPUTS[output](findings_on(named_radiograph(tmp_path, character_set))), tmp_path) == []


@pytest.mark.parametrize("output", OUTPUTS)
def test_dciodvfy_has_nothing_to_say_of_an_object_in_another_language(output: str, tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path), language=Language.SPANISH)
    assert complaints(OUTPUTS[output](findings), tmp_path) == []


@pytest.mark.parametrize("output", OUTPUTS)
def test_dciodvfy_has_nothing_to_say_of_an_image_that_is_undetermined(output: str, tmp_path: Path) -> None:
    usual = findings_on(radiograph(tmp_path), assessment=Assessment.UNDETERMINED)
    findings = replace(usual, images=(replace(usual.images[0], undetermined=True),))
    assert complaints(OUTPUTS[output](findings), tmp_path) == []


@pytest.mark.parametrize("output", OUTPUTS)
def test_dciodvfy_has_nothing_to_say_of_a_second_report_on_several_images(output: str, tmp_path: Path) -> None:
    request = Dataset()
    request.RequestedProcedureID = "RP7"
    request.ScheduledProcedureStepID = "SPS7"
    paths = [
        radiograph(tmp_path, RequestAttributesSequence=[request], TimezoneOffsetFromUTC="+0900"),
        radiograph(tmp_path, number=2, ViewPosition=None, PatientOrientation=None, ImagerPixelSpacing=None),
    ]
    predecessor = ObjectReference(
        sop_class_uid=SOPClassUID(ComprehensiveSRStorage),
        sop_instance_uid=SOPInstanceUID("1.2.3.4"),
        series_uid=SeriesUID("1.2.3"),
    )
    assert complaints(OUTPUTS[output](findings_on(*paths, predecessor=predecessor)), tmp_path) == []


@pytest.mark.parametrize("output", OUTPUTS)
def test_dciodvfy_has_nothing_to_say_of_an_object_from_an_image_with_broken_values(output: str, tmp_path: Path) -> None:
    path = radiograph(
        tmp_path,
        StudyDate="20269999",
        StudyTime="25:00",
        PatientBirthDate="about 1950",
        PatientSex="MALE",
        PatientOrientation=["left", "down"],
        ImagerPixelSpacing=["-1", "0.2"],
        StudyDescription="x" * 80,
        ViewPosition="nonsense",
        TimezoneOffsetFromUTC="9999",
    )
    said = complaints(OUTPUTS[output](findings_on(path)), tmp_path)
    assert [line for line in said if INHERITED[0] not in line] == []


@pytest.mark.parametrize("output", OUTPUTS)
def test_dciodvfy_has_nothing_to_say_of_an_object_from_a_real_image_but_what_it_inherits(output: str, tmp_path: Path) -> None:
    for path in real_images():
        said = complaints(OUTPUTS[output](findings_on(path)), tmp_path)
        assert [line for line in said if not any(reason in line for reason in INHERITED)] == [], path.name


@pytest.mark.parametrize("output", ["comprehensive", "not-analysed"])
def test_any_real_file_gives_a_sound_report_or_a_refusal(output: str, tmp_path: Path) -> None:
    refused = []
    for path in sorted(dicom_folder().glob("*.dcm")):
        try:
            ds = REPORTS[output](findings_on(path))
        except InvalidReport:
            refused.append(path.name)
            continue
        wrong_uids = "UID", "Dicom dataset contains invalid data values"  # of a source, which is referred to as it is
        said = complaints(ds, tmp_path)
        assert [line for line in said if not any(reason in line for reason in (*INHERITED, *wrong_uids))] == [], path.name
    assert all(name.startswith("b_") for name in refused)


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What PixelMed says of every report, of made-up and real patients in turn, and of one that is wrong."""
    folder = tmp_path_factory.mktemp("validated")
    several = [radiograph(folder), radiograph(folder, number=2, ViewPosition=None, ImagerPixelSpacing=None)]
    documents = {name: build(findings_on(*several)) for name, build in REPORTS.items()}
    documents |= {f"{name}-es": build(findings_on(*several, language=Language.SPANISH)) for name, build in IN_WORDS.items()}
    wrong = build_key_object(findings_on(*several))
    wrong.ContentSequence[-1].ConceptNameCodeSequence = wrong.ConceptNameCodeSequence
    (folder / "named").mkdir()
    for patient, (name, build) in zip([*CHARACTER_SETS, *real_images()], cycle(IN_WORDS.items()), strict=False):
        path = patient if isinstance(patient, Path) else named_radiograph(folder / "named", patient)
        documents[f"{name}-{Path(patient).stem}"] = build(findings_on(path))
    return pixelmed_says({**documents, "wrong": wrong}, folder)


def test_pixelmed_finds_no_error_in_any_report(validated: dict[str, list[str]]) -> None:
    for name, said in validated.items():
        assert "IOD validation complete" in said, name
        assert any(line.startswith("Found Root Template TID_") for line in said), name
        assert name == "wrong" or [line for line in said if line.startswith("Error")] == [], name


def test_pixelmed_would_tell_an_error(validated: dict[str, list[str]]) -> None:
    assert any(line.startswith("Error") for line in validated["wrong"])


def test_dcmtk_accepts_the_presentation_state_of_made_up_and_real_images(tmp_path: Path) -> None:
    paths = [radiograph(tmp_path), *real_images()]  # its check of names knows no UTF-8
    for path in paths:
        pydicom.dcmwrite(tmp_path / "state.dcm", build_presentation_state(findings_on(path)), enforce_file_format=True)
        said = subprocess.run([need("dcmpschk"), tmp_path / "state.dcm"], capture_output=True, text=True, check=False).stderr
        assert "Test passed." in said, path.name


def dumped(findings: StudyFindings, folder: Path, output: str = "comprehensive") -> str:
    path = folder / "report.dcm"
    pydicom.dcmwrite(path, REPORTS[output](findings), enforce_file_format=True)
    return subprocess.run(
        [need("dsrdump"), "--print-all-codes", "--print-long-values", path], capture_output=True, text=True, check=True
    ).stdout


def test_dsrdump_reads_the_report(tmp_path: Path) -> None:
    text = dumped(findings_on(radiograph(tmp_path), radiograph(tmp_path, number=2)), tmp_path)
    assert text.count('NUM:(111012,DCM,"Certainty of Finding")') == 6
    assert '"73.12" (%,UCUM,"Percent")' in text
    assert text.count('CODE:(840544004,SCT,"Suspected COVID-19")') == 2
    assert '=(RID49480,RADLEX,"ACR Category 1 Actionable Finding")' in text
    assert "AI-generated. Not for primary diagnosis. Research use only." in text


def test_dsrdump_reads_the_report_in_words(tmp_path: Path) -> None:
    text = dumped(findings_on(radiograph(tmp_path), radiograph(tmp_path, number=2)), tmp_path, "text")
    assert text.count('contains TEXT:(121071,DCM,"Finding")') == 2
    assert r"Image 1.\r\nCOVID-19: present, 73.1 % (threshold 41.0 %).\r\nNormal: absent" in text
    assert text.count("inferred from IMAGE:=(DX image") == 2
    assert "AI-generated. Not for primary diagnosis. Research use only." in text


def test_dsrdump_reads_why_a_study_was_not_analysed(tmp_path: Path) -> None:
    text = dumped(findings_on(radiograph(tmp_path)), tmp_path, "not-analysed")
    assert "Image 1 not analysed: it is no frontal view." in text


def test_dsrdump_reads_the_key_object(tmp_path: Path) -> None:
    text = dumped(findings_on(radiograph(tmp_path), radiograph(tmp_path, number=2)), tmp_path, "key-object")
    assert 'CONTAINER:(113000,DCM,"Of Interest")' in text
    assert text.count("contains IMAGE:=(DX image") == 1


def test_dsrdump_reads_a_report_on_a_real_image(tmp_path: Path) -> None:
    for path in real_images():
        assert dumped(findings_on(path), tmp_path).count('NUM:(111012,DCM,"Certainty of Finding")') == 3
