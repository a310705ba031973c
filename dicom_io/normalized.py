"""Requests of the normalized services that others send us, as the receiving end hands them on (PS3.7 section 10)."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from dicom_io.values import SOPClassUID, SOPInstanceUID, TransferSyntaxUID


class Command(IntEnum):
    """The requests that are answered, each the value of its Command Field (PS3.7 table E.1-1)."""

    N_EVENT_REPORT = 0x0100
    N_SET = 0x0120
    N_ACTION = 0x0130
    N_CREATE = 0x0140


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizedRequest:
    """One request as it came: the command's fields and the undecoded data set."""

    command: Command
    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    """Empty where the sender of an N-CREATE leaves the choice to us."""
    type_id: int | None
    """Event Type ID or Action Type ID; None where the command has none."""
    dataset: bytes
    """Empty where the request came without one."""
    transfer_syntax: TransferSyntaxUID
    calling_ae_title: str
    peer_address: str


NormalizedService = Callable[[NormalizedRequest], None]
"""Does what is asked. Returning means 0x0000; an error becomes a status by `dicom_io.status.normalized_status_of`."""
