"""What a performed step and an availability notice say, and that nothing else comes out of a stranger's bytes."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io.availability import read_notice
from dicom_io.errors import InvalidObject, NotDicom
from dicom_io.mpps import PerformedStep, StepStatus, read_step
from dicom_io.payload import encode_payload


def item(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def references(*uids: str, **attributes: Any) -> list[Dataset]:
    return [item(ReferencedSOPInstanceUID=uid, **attributes) for uid in uids]


def test_a_step_that_begins_names_its_studies_and_no_instances_yet() -> None:
    ds = item(
        PerformedProcedureStepStatus="IN PROGRESS",
        ScheduledStepAttributesSequence=[item(StudyInstanceUID="1.2.3"), item(StudyInstanceUID="1.2.3")],
    )
    assert read_step(encode_payload(ds), ImplicitVRLittleEndian) == PerformedStep(
        status=StepStatus.IN_PROGRESS, study_uids=frozenset({"1.2.3"}), instances=None
    )


def test_a_completed_step_names_images_and_other_objects_of_every_series() -> None:
    first = item(SeriesInstanceUID="1.1", ReferencedImageSequence=references("1.1.1", "1.1.2"))
    second = item(SeriesInstanceUID="1.2", ReferencedNonImageCompositeSOPInstanceSequence=references("1.2.1"))
    ds = item(PerformedProcedureStepStatus="COMPLETED", PerformedSeriesSequence=[first, second])
    step = read_step(encode_payload(ds), ImplicitVRLittleEndian)
    assert (step.status, step.instances) == (StepStatus.COMPLETED, {"1.1.1", "1.1.2", "1.2.1"})


def test_a_step_that_says_nothing_of_series_is_not_one_without_instances() -> None:
    said = read_step(encode_payload(item(PerformedProcedureStepDescription="Chest")), ImplicitVRLittleEndian)
    assert said == PerformedStep(status=None, study_uids=frozenset(), instances=None)
    none = read_step(encode_payload(item(PerformedSeriesSequence=[])), ImplicitVRLittleEndian)
    assert none.instances == frozenset()


def test_a_notice_names_what_can_be_had() -> None:
    series = item(
        ReferencedSOPSequence=[
            *references("1.1", "1.2", InstanceAvailability="ONLINE"),
            *references("1.3", InstanceAvailability="UNAVAILABLE"),
            *references("1.4", InstanceAvailability="NEARLINE"),
        ]
    )
    notice = read_notice(
        encode_payload(item(StudyInstanceUID="1.2.3", ReferencedSeriesSequence=[series])), ImplicitVRLittleEndian
    )
    assert (notice.study_uid, notice.instances) == ("1.2.3", {"1.1", "1.2", "1.4"})


def test_a_notice_without_a_study_is_refused() -> None:
    with pytest.raises(InvalidObject):
        read_notice(encode_payload(item(ReferencedSeriesSequence=[])), ImplicitVRLittleEndian)


@pytest.mark.parametrize("read", [read_step, read_notice])
def test_sequences_that_are_none_are_an_error_of_ours(read: Any) -> None:
    ds = item(StudyInstanceUID="1.2.3")
    ds.add_new(0x00081115, "LO", "text")
    ds.add_new(0x00400340, "LO", "text")
    with pytest.raises(NotDicom):
        read(encode_payload(ds), ImplicitVRLittleEndian)


@given(st.binary(max_size=300), st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian]))
def test_any_bytes_are_read_or_refused(encoded: bytes, syntax: str) -> None:
    for read in (read_step, read_notice):
        with suppress(NotDicom, InvalidObject):
            read(encoded, syntax)
