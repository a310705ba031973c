from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from highdicom.ko import KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_io.codes import Condition
from dicom_io.errors import InvalidReport
from dicom_io.key_object import build_key_object
from dicom_io.uids import DEVICE_UID
from dicom_io.values import StudyFindings
from dicom_io.wording import Language, wording_in
from tests.studies import STUDY_UID, encoded, findings_on, radiograph, reread, tree

EXPECTED = Path(__file__).parent / "expected" / "key_object_tree.txt"


def key_object_on(*paths: Path, **changes: Any) -> Dataset:
    return reread(build_key_object(findings_on(*paths, **changes)))


def flagging(findings: StudyFindings, condition: Condition | None) -> StudyFindings:
    """The same findings with one condition present on every image, or none."""
    images = tuple(
        replace(image, findings=tuple(replace(one, present=one.condition is condition) for one in image.findings))
        for image in findings.images
    )
    return replace(findings, images=images)


def test_the_tree_is_the_recorded_one(tmp_path: Path) -> None:
    ds = key_object_on(radiograph(tmp_path), radiograph(tmp_path, number=2))
    assert tree(ds) == EXPECTED.read_text(encoding="utf-8").splitlines()


def test_highdicom_reads_which_images_are_flagged_and_by_whom(tmp_path: Path) -> None:
    document = KeyObjectSelectionDocument.from_dataset(key_object_on(radiograph(tmp_path), radiograph(tmp_path, number=2)))
    [reference] = document.content.get_references()
    assert reference.referenced_sop_instance_uid == f"{STUDY_UID}.1.1"
    assert document.resolve_reference(f"{STUDY_UID}.1.1") == (STUDY_UID, f"{STUDY_UID}.1", f"{STUDY_UID}.1.1")
    [observer] = document.content.get_observer_contexts(observer_type=codes.DCM.Device)
    assert observer.observer_identifying_attributes.uid == DEVICE_UID


def test_images_without_concern_are_no_key_images(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path), radiograph(tmp_path, number=2))
    both = build_key_object(flagging(findings, Condition.PNEUMONIA))
    assert sum(item.ValueType == "IMAGE" for item in both.ContentSequence) == 2
    for calm in (flagging(findings, None), flagging(findings, Condition.NORMAL)):
        with pytest.raises(InvalidReport):
            build_key_object(calm)


def test_an_image_is_named_without_a_purpose(tmp_path: Path) -> None:
    [image] = [item for item in key_object_on(radiograph(tmp_path)).ContentSequence if item.ValueType == "IMAGE"]
    assert "ConceptNameCodeSequence" not in image


@pytest.mark.parametrize("language", Language)
def test_the_description_has_the_impression_and_the_limits(language: Language, tmp_path: Path) -> None:
    ds = key_object_on(radiograph(tmp_path), impression="Something else.", language=language)
    [description] = [item.TextValue for item in ds.ContentSequence if item.get("TextValue", "").startswith("Something")]
    assert description == f"Something else. {wording_in(language).disclaimer}"


def test_it_is_a_key_object_in_its_own_series_with_the_order(tmp_path: Path) -> None:
    request = Dataset()
    request.RequestedProcedureID = "RP7"
    ds = key_object_on(radiograph(tmp_path, RequestAttributesSequence=[request]))
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == KeyObjectSelectionDocumentStorage
    assert (ds.SeriesNumber, ds.Modality) == (9007, "KO")
    assert ds.ReferencedRequestSequence[0].RequestedProcedureID == "RP7"


def test_equal_findings_give_equal_bytes(tmp_path: Path) -> None:
    findings = findings_on(radiograph(tmp_path))
    assert encoded(build_key_object(findings)) == encoded(build_key_object(findings))


def test_images_of_two_patients_are_refused_even_where_only_one_is_flagged(tmp_path: Path) -> None:
    with pytest.raises(InvalidReport):
        key_object_on(radiograph(tmp_path), radiograph(tmp_path, number=2, PatientID="P-2"))
