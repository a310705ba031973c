"""Data sets of messages that bring no object to keep: answers to queries, performed steps, notices."""

from collections.abc import Iterator
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_io.bounded import bounded, require_few_items, value_of
from dicom_io.errors import NotDicom
from dicom_io.foreign import any_error_as
from dicom_io.values import ANY_UID

_LONGEST_BYTES = 8 * 1024 * 1024


def decode_payload(encoded: bytes, transfer_syntax: str) -> Dataset:
    """Read a data set as it travelled, every value of it still to be converted.

    Raises
    ------
    NotDicom
        It cannot be parsed, or is longer than what is told of any study.
    """
    if len(encoded) > _LONGEST_BYTES:
        raise NotDicom("The data set of a message is too long.")
    require_few_items(encoded)
    with any_error_as(NotDicom, "The data set of a message cannot be parsed: {}."), bounded(BytesIO(encoded)) as file:
        return read_dataset(
            file,
            is_implicit_VR=transfer_syntax == ImplicitVRLittleEndian,
            is_little_endian=transfer_syntax != ExplicitVRBigEndian,
        )


def encode_payload(ds: Dataset) -> bytes:
    """A data set's bytes in Implicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, ds)
    return buffer.getvalue()


def text_of(ds: Dataset, keyword: str) -> str:
    """An attribute as text; empty where it is absent, has no value or several.

    Raises
    ------
    NotDicom
        It cannot be read.
    """
    with any_error_as(NotDicom, f"{keyword} cannot be read: {{}}."):
        value = value_of(ds, keyword)
        return value.strip(" \0") if isinstance(value, str) else ""


def uid_of(ds: Dataset, keyword: str) -> str:
    """An attribute that is a UID; empty where it is absent or none, which fits into no column and names nothing.

    Raises
    ------
    NotDicom
        It cannot be read.
    """
    text = text_of(ds, keyword)
    return text if ANY_UID.fullmatch(text) else ""


def items_of(ds: Dataset, keyword: str) -> Iterator[Dataset]:
    """The items of a sequence; none where it is absent or something else.

    Raises
    ------
    NotDicom
        It cannot be read.
    """
    with any_error_as(NotDicom, f"{keyword} cannot be read: {{}}."):
        found = [item for item in value_of(ds, keyword) or () if isinstance(item, Dataset)]
    yield from found
