"""Data sets of messages that bring no object, as small sound examples."""

from typing import Any

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def written(ds: Dataset, *, implicit: bool = True) -> bytes:
    """The bytes of a data set in little endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    write_dataset(buffer, ds)
    return buffer.getvalue()


def item(**attributes: Any) -> Dataset:
    """A data set of these attributes."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def _reference(number: int, **more: Any) -> Dataset:
    return item(ReferencedSOPClassUID=DX, ReferencedSOPInstanceUID=f"1.2.3.{number}", **more)


def step(count: int = 2) -> Dataset:
    """What an N-CREATE or N-SET of a performed procedure step says."""
    return item(
        PerformedProcedureStepStatus="COMPLETED",
        ScheduledStepAttributesSequence=[item(StudyInstanceUID="1.2.3")],
        PerformedSeriesSequence=[
            item(
                SeriesInstanceUID="1.2.3.4",
                ReferencedImageSequence=[_reference(number) for number in range(count)],
                ReferencedNonImageCompositeSOPInstanceSequence=[_reference(99)],
            )
        ],
    )


def notice(count: int = 2) -> Dataset:
    """What an Instance Availability Notification says."""
    return item(
        StudyInstanceUID="1.2.3",
        ReferencedSeriesSequence=[
            item(
                SeriesInstanceUID="1.2.3.4",
                ReferencedSOPSequence=[
                    _reference(number, InstanceAvailability="ONLINE", RetrieveAETitle="ARCHIVE") for number in range(count)
                ],
            )
        ],
    )


def commitment(count: int = 2) -> Dataset:
    """What an N-EVENT-REPORT of storage commitment says."""
    return item(
        TransactionUID="2.25.1",
        ReferencedSOPSequence=[_reference(number) for number in range(count)],
        FailedSOPSequence=[_reference(99, FailureReason=0x0112)],
    )


STEP_OF_A_STUDY = written(step())
NOTICE_OF_A_STUDY = written(notice(), implicit=False)
COMMITMENT = written(commitment())
