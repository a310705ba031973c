"""Instance Availability Notification: which instances of a study an archive has (PS3.4 annex R)."""

from dataclasses import dataclass
from typing import Final

from dicom_io.errors import InvalidObject
from dicom_io.payload import decode_payload, items_of, text_of, uid_of
from dicom_io.values import SOPClassUID, SOPInstanceUID, StudyUID

NOTICE: Final = SOPClassUID("1.2.840.10008.5.1.4.33")
"""Instance Availability Notification SOP Class."""

_UNAVAILABLE: Final = "UNAVAILABLE"
"""Instance Availability (0008,0056) of what cannot be retrieved, and so will not come (PS3.3 C.4.23.1.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailabilityNotice:
    """What one notice said."""

    study_uid: StudyUID
    instances: frozenset[SOPInstanceUID]
    """Those that can be had."""


def read_notice(encoded: bytes, transfer_syntax: str) -> AvailabilityNotice:
    """Read the data set of an N-CREATE.

    Raises
    ------
    dicom_io.errors.NotDicom
        It cannot be parsed.
    dicom_io.errors.InvalidObject
        It names no study.
    """
    ds = decode_payload(encoded, transfer_syntax)
    study_uid = uid_of(ds, "StudyInstanceUID")
    if not study_uid:
        raise InvalidObject("An Instance Availability Notification names no study.")
    return AvailabilityNotice(
        study_uid=StudyUID(study_uid),
        instances=frozenset(
            SOPInstanceUID(uid)
            for series in items_of(ds, "ReferencedSeriesSequence")
            for reference in items_of(series, "ReferencedSOPSequence")
            if text_of(reference, "InstanceAvailability") != _UNAVAILABLE
            if (uid := uid_of(reference, "ReferencedSOPInstanceUID"))
        ),
    )
