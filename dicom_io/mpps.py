"""Modality Performed Procedure Step: what a modality made and whether it has finished (PS3.4 annex F)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dicom_io.payload import decode_payload, items_of, text_of, uid_of
from dicom_io.values import SOPClassUID, SOPInstanceUID, StudyUID

STEP: Final = SOPClassUID("1.2.840.10008.3.1.2.3.3")
"""Modality Performed Procedure Step SOP Class."""

_REFERENCES: Final = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")


class StepStatus(StrEnum):
    """Performed Procedure Step Status (0040,0252), PS3.3 C.4.14."""

    IN_PROGRESS = "IN PROGRESS"
    """More may be made."""
    COMPLETED = "COMPLETED"
    """What is named is all there is."""
    DISCONTINUED = "DISCONTINUED"
    """Given up: what is named is all there will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformedStep:
    """What a message said of a step. A later message says only what changed."""

    status: StepStatus | None
    """None where it does not say."""
    study_uids: frozenset[StudyUID]
    """Of Scheduled Step Attributes Sequence, which the first message has."""
    instances: frozenset[SOPInstanceUID] | None
    """Of Performed Series Sequence; None where it does not say."""


def read_step(encoded: bytes, transfer_syntax: str) -> PerformedStep:
    """Read the data set of an N-CREATE or N-SET.

    Raises
    ------
    dicom_io.errors.NotDicom
        It cannot be parsed.
    """
    ds = decode_payload(encoded, transfer_syntax)
    status = text_of(ds, "PerformedProcedureStepStatus")
    scheduled = (uid_of(item, "StudyInstanceUID") for item in items_of(ds, "ScheduledStepAttributesSequence"))
    made = frozenset(
        SOPInstanceUID(uid)
        for series in items_of(ds, "PerformedSeriesSequence")
        for keyword in _REFERENCES
        for reference in items_of(series, keyword)
        if (uid := uid_of(reference, "ReferencedSOPInstanceUID"))
    )
    return PerformedStep(
        status=StepStatus(status) if status in set(StepStatus) else None,
        study_uids=frozenset(StudyUID(uid) for uid in scheduled if uid),
        instances=made if "PerformedSeriesSequence" in ds else None,
    )
