"""Which of the received objects are analysed, and whose they are."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicom_io.values import SOPInstanceUID, TransferSyntaxUID
from dicom_io.wrap import Encoding
from tests.factories import make_dx, radiograph, write
from tests.fakes import stored_instance
from worker.steps.select import SelectedImage, newest_contents, of_one_patient, select
from worker.values import ImageOutcome, StoredInstance

RLE = TransferSyntaxUID("1.2.840.10008.1.2.5")


def _stored(ds: Dataset, path: Path, number: int = 1, **changes: Any) -> StoredInstance:
    uid = SOPInstanceUID(str(ds.SOPInstanceUID))
    return stored_instance(number, sop_instance_uid=uid, path=write(ds, path / f"{number}.dcm"), **changes)


def test_a_frontal_chest_radiograph_passes(tmp_path: Path) -> None:
    instance = _stored(make_dx(), tmp_path)
    selected = select(instance)
    assert isinstance(selected, SelectedImage)
    assert selected.instance is instance


def test_a_lateral_does_not_pass_and_says_why(tmp_path: Path) -> None:
    outcome = select(_stored(make_dx(view="LL"), tmp_path))
    assert isinstance(outcome, ImageOutcome)
    assert (outcome.eligible, outcome.answer) == (False, None)
    assert outcome.reason == "ViewPosition is LL; PA or AP is expected."


def test_a_file_that_is_not_dicom_does_not_pass(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(b"nonsense" * 50)
    outcome = select(stored_instance(path=path))
    assert isinstance(outcome, ImageOutcome)
    assert (outcome.eligible, outcome.reason_code) == (False, "not_dicom")


def test_the_same_image_in_another_encoding_is_a_repetition_and_the_first_stays(tmp_path: Path) -> None:
    first = _stored(make_dx(), tmp_path, 1)
    again = _stored(make_dx(encoding=Encoding(transfer_syntax=RLE)), tmp_path, 2)
    chosen, set_aside = newest_contents((first, again))
    assert chosen == [first]
    assert [(outcome.instance, outcome.reason_code) for outcome in set_aside] == [(again, "repeated")]


def test_other_content_under_the_same_uid_replaces_the_one_before(tmp_path: Path) -> None:
    first, second, third = (_stored(make_dx(radiograph(seed=number)), tmp_path, number) for number in (1, 2, 3))
    chosen, set_aside = newest_contents((first, second, third))
    assert chosen == [third]
    assert [(outcome.instance, outcome.reason_code) for outcome in set_aside] == [(first, "replaced"), (second, "replaced")]
    assert all(not outcome.eligible and outcome.reason for outcome in set_aside)


def test_different_images_are_all_chosen_in_their_order(tmp_path: Path) -> None:
    instances = tuple(stored_instance(number, path=tmp_path / "unread") for number in (3, 1, 2))
    assert newest_contents(instances) == (list(instances), [])


def _of(number: int, patient_id: str, issuer: str = "") -> StoredInstance:
    return stored_instance(number, patient_id=patient_id, issuer_of_patient_id=issuer)


@pytest.mark.parametrize(
    ("instances", "one"),
    [
        ((_of(1, "A"),), True),
        ((_of(1, "A"), _of(2, "A")), True),
        ((_of(1, "A"), _of(2, "B")), False),
        ((_of(1, "A"), _of(2, "")), False),
        ((_of(1, "A", "X"), _of(2, "A", "Y")), False),
        ((_of(1, "A", "X"), _of(2, "A")), True),
        ((_of(1, "A"), _of(2, "B"), _of(2, "A")), True),
        ((_of(1, "A"), _of(2, "A"), _of(2, "B")), False),
    ],
    ids=["alone", "same", "other", "none named", "other issuer", "no issuer", "corrected", "corrected to the worse"],
)
def test_a_study_is_of_one_patient_when_the_newest_content_of_every_image_says_so(
    instances: tuple[StoredInstance, ...], *, one: bool
) -> None:
    assert of_one_patient(instances) is one
